"""GPUs on the metrics page."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from zeta.telemetry.v1.telemetry_service_pb2 import GpuUse

from telemetry_svc.agent import wire
from telemetry_svc.agent.board import Gpu
from telemetry_svc.gpu_metrics import families
from tests.unit.telemetry_svc.agent.test_wire import FULL

REPLICA = ("m", "m-0")


class Given(Collector):
    """Collects what it is given."""

    def __init__(self, *gpus: GpuUse) -> None:
        self._gpus = gpus

    def collect(self) -> list[Metric]:
        """Return their families."""
        return list(families((REPLICA, gpu) for gpu in self._gpus))


def page(*gpus: GpuUse) -> list[str]:
    """Return the samples of a page with these GPUs."""
    registry = CollectorRegistry()
    registry.register(Given(*gpus))
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_every_figure_is_on_the_page() -> None:
    """Names follow OpenTelemetry, units stand at the end, labels tell figures apart."""
    shown = page(wire.gpu_use(FULL))
    board = 'hw_id="GPU-0",hw_name="board 0",model="m",replica="m-0"'

    for sample in (
        f"hw_gpu_utilization_ratio{{{board}}} 0.25",
        f"hw_power_limit_watts{{{board}}} 700.0",
        f"hw_energy_joules_total{{{board}}} 1.5",
        f'hw_gpu_clock_hertz{{clock="memory",{board}}} 2.619e+09',
        f"hw_gpu_throttled{{{board}}} 1.0",
        f'hw_errors_total{{error_type="ecc_uncorrected",{board}}} 1.0',
        f'hw_errors_total{{error_type="xid",{board}}} 0.0',
        f"hw_gpu_last_xid{{{board}}} 79.0",
        f'hw_gpu_pcie_bytes_per_second{{direction="receive",{board}}} 400000.0',
        f'hw_gpu_nvlink_bytes_total{{direction="transmit",{board}}} 1.024e+06',
    ):
        assert sample in shown
    assert any('reason="sw_power_cap"' in line for line in shown)
    assert any('process_pid="8"' in line and line.endswith(" 1.073741824e+09") for line in shown)
    assert any(
        line.startswith("hw_gpu_pipe_active_ratio")
        and 'instance="MIG-0"' in line
        and 'pipe="tensor"' in line
        for line in shown
    )


def test_every_number_of_the_message_is_on_the_page() -> None:
    """No figure is reported and then shown nowhere."""
    full = wire.gpu_use(FULL)
    figures = {f.name for f in full.DESCRIPTOR.fields if not f.message_type}
    unshown = {"uuid", "name", "index", "mig_enabled"}
    for name in figures - unshown - {"clock_reasons"}:
        without = GpuUse()
        without.CopyFrom(full)
        without.ClearField(name)  # type: ignore[arg-type] # one of its own fields

        assert len(page(without)) == len(page(full)) - 1, name


def test_what_is_not_known_is_not_on_the_page() -> None:
    """Nothing, not zero."""
    assert page(wire.gpu_use(Gpu(uuid="GPU-1", name="", index=1))) == []
