"""TensorRT.

`open.py` puts the parts together; `backend.py`, `capacity.py`, `memory.py` and `plans.py` are plain
NumPy and run anywhere; `device.py` says what they ask of a card and of TensorRT; `card.py` needs
CUDA's bindings, `engine.py`, `build.py` and `maker.py` need TensorRT; those four are imported only
where a model's `runtime` is "tensorrt".
"""
