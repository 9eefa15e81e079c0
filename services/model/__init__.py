"""The model service: one process serves one model through continuous batching."""
