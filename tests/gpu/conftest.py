"""What only a GPU can show. One command: `make gpu`.

It needs an NVIDIA GPU with a driver for CUDA 13, `cuda-bindings`, and TensorRT 11; what is missing
skips the tests that need it, with the reason. `test_card.py` and `test_telemetry.py` need no
TensorRT. Where Python's packages are there already, and pytest's plug-ins of this project are not:

    python -m pytest -c /dev/null --rootdir . --import-mode importlib -s tests/gpu

Used of Python's packages: cuda-bindings, grpcio, msgspec, ml_dtypes, numpy, nvidia-ml-py, onnx,
onnxruntime 1.27 or later, pytest, safetensors, structlog, tokenizers. Memory is taken with plain
allocations; clocks and modes of the card are left alone.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.kit.errors import ConfigError

if TYPE_CHECKING:
    from services.model.backends.trt.card import Card
    from services.model.backends.trt.maker import TensorRTMaker

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below this folder, also those of other modules that it runs again."""
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def card() -> "Card":
    """The first GPU."""
    pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)
    from services.model.backends.trt.card import Card  # noqa: PLC0415 - needs cuda-bindings

    try:
        return Card(0)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def maker(card: "Card") -> "TensorRTMaker":
    """TensorRT on it."""
    del card
    pytest.importorskip("tensorrt", exc_type=ImportError)
    from services.model.backends.trt.maker import TensorRTMaker  # noqa: PLC0415 - needs TensorRT

    return TensorRTMaker(0)
