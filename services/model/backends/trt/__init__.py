"""TensorRT.

`open.py` puts the parts together; `backend.py`, `memory.py` and `plans.py` are plain NumPy and run
anywhere; `device.py` says what they ask of a card and of TensorRT; `maker.py`, `nvidia.py` and
`build.py` are the only modules that need TensorRT and CUDA, and are imported only where a model's
`runtime` is "tensorrt".
"""
