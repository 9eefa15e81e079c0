"""TensorRT on one card: a `device.Maker`."""

import tensorrt as trt

from services.model.backends.trt import plans
from services.model.backends.trt.build import build
from services.model.backends.trt.card import Card
from services.model.backends.trt.device import Built, Loaded, Progress, Task
from services.model.backends.trt.engine import Log, Plan


class TensorRTMaker:
    """Builds and loads plans with TensorRT."""

    def __init__(self, gpu: int) -> None:
        """Take GPU number *gpu*. Raises ConfigError where there is none."""
        self.device = Card(gpu)
        self._said = Log()

    def about(self) -> plans.Card:
        """As `Maker.about`."""
        return self.device.about(trt.__version__)

    def free_bytes(self) -> int:
        """As `Maker.free_bytes`."""
        return self.device.free_bytes()

    def build(self, task: Task, progress: Progress) -> Built:
        """As `Maker.build`."""
        return build(task, self._said, progress)

    def load(self, content: memoryview, room_bytes: int) -> Loaded:
        """As `Maker.load`."""
        plan = Plan(content, self._said)
        away_bytes = plan.keep_weights(room_bytes)
        prefill, decode = (plan.context(profile, self.device) for profile in (0, 1))
        return Loaded(prefill=prefill, decode=decode, away_bytes=away_bytes)
