"""Plans through TensorRT, loaded on a card.

Written for TensorRT 11; `tests/contract/test_tensorrt.py` checks every name and call here and in
`build` against the real bindings.
"""

from collections import deque
from collections.abc import Mapping

import structlog
import tensorrt as trt

from services.kit.errors import ConfigError
from services.model.backends.trt.card import Card
from services.model.backends.trt.device import Sizes

log = structlog.get_logger()

_KEPT_MESSAGES = 3


class Log(trt.ILogger):  # type: ignore[misc]  # types come where TensorRT is
    """Passes TensorRT's messages on, and remembers what went wrong: its calls only say that."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._wrong: deque[str] = deque(maxlen=_KEPT_MESSAGES)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """As TensorRT defines it; called from its threads too."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self._wrong.append(msg)
            log.error("tensorrt", message=msg)
        elif severity == trt.ILogger.WARNING:
            log.warning("tensorrt", message=msg)
        else:
            log.debug("tensorrt", message=msg)

    def reason(self) -> str:
        """Return what went wrong last, and forget it."""
        said = "; ".join(self._wrong) or "TensorRT gave no reason"
        self._wrong.clear()
        return said


class Plan:
    """A plan, loaded."""

    def __init__(self, content: memoryview, said: Log) -> None:
        """Load what `build` made. Raises ConfigError."""
        self.said = said
        self._runtime = trt.Runtime(said)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise ConfigError(f"TensorRT does not load the plan: {said.reason()}")
        self.engine = engine

    def keep_weights(self, room_bytes: int) -> int:
        """Keep weights on the card as far as there is room; return how many bytes stay away."""
        streamable = int(self.engine.streamable_weights_size)
        if streamable:
            self.engine.weight_streaming_budget_v2 = min(room_bytes, streamable)
        return max(0, streamable - room_bytes)

    def context(self, profile: int, card: Card) -> "Context":
        """Return one profile, ready. Raises MemoryError."""
        strategy = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = self.engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(profile, card.stream):
            raise MemoryError(self.said.reason())
        card.wait()
        self._check_aliases()
        return Context(context, card, self)

    def _check_aliases(self) -> None:
        """Caches must be updated in place: an output elsewhere would never be read."""
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        for name in (n for n in names if n.startswith("present_")):
            shared = self.engine.get_aliased_input_tensor(name)
            if shared != name.replace("present_", "past_", 1):
                raise ConfigError(
                    f"TensorRT {trt.__version__} would not update the cache in place: {name} "
                    f"shares memory with {shared or 'no input'}; use TensorRT 10.15 or later"
                )


class Context:
    """One profile of a plan: a `device.Context`."""

    def __init__(self, context: trt.IExecutionContext, card: Card, plan: Plan) -> None:
        # The plan is kept, since a context is nothing without its engine.
        self._context, self._card, self._plan = context, card, plan

    def bind(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        """As `device.Context.bind`."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise RuntimeError(f"{name} of shape {shape}: {self._plan.said.reason()}")
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise RuntimeError(f"{name} at {address}: {self._plan.said.reason()}")

    def enqueue(self) -> None:
        """As `device.Context.enqueue`."""
        self._card.here()
        if not self._context.execute_async_v3(self._card.stream):
            raise RuntimeError(self._plan.said.reason())
