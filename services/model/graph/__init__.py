"""From a Hugging Face directory to an ONNX graph."""
