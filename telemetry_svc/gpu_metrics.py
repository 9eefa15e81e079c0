"""GPUs on the metrics page. What a board does not give is left out, not zero.

Several replicas of one machine report the same board; `hw_id` tells boards apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from zeta.telemetry.v1.telemetry_service_pb2 import ClockReason, GpuUse

Replica = tuple[str, str]
"""Its model and its name."""
LABELS = ("model", "replica", "hw_id", "hw_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """A metric: a field of `GpuUse`, or several that a label tells apart."""

    text: str
    fields: tuple[tuple[str, str], ...]
    """The field, and what the label says of it."""
    label: str = ""
    total: bool = False


def _one(field: str, text: str, *, total: bool = False) -> _Family:
    return _Family(text=text, fields=((field, ""),), total=total)


_OF_BOARDS = {
    "hw_gpu_utilization_ratio": _one("utilization_ratio", "Share of time in which a kernel ran."),
    "hw_gpu_memory_usage_bytes": _one("memory_used_bytes", "GPU memory in use."),
    "hw_gpu_memory_limit_bytes": _one("memory_total_bytes", "GPU memory there is."),
    "hw_gpu_memory_busy_ratio": _one(
        "memory_busy_ratio", "Share of time in which GPU memory was read or written."
    ),
    "hw_power_watts": _one("power_w", "Power that the board draws."),
    "hw_power_limit_watts": _one("power_limit_w", "Power that the board may draw."),
    "hw_energy_joules": _one("energy_j", "Energy that the board used.", total=True),
    "hw_temperature_celsius": _one("temperature_c", "Temperature of the board."),
    "hw_gpu_memory_temperature_celsius": _one(
        "memory_temperature_c", "Temperature of the board's memory."
    ),
    "hw_gpu_clock_hertz": _Family(
        text="Clocks as they run.",
        fields=(("sm_clock_hz", "sm"), ("memory_clock_hz", "memory")),
        label="clock",
    ),
    "hw_gpu_clock_limit_hertz": _Family(
        text="The highest that a clock can be.", fields=(("max_sm_clock_hz", "sm"),), label="clock"
    ),
    "hw_gpu_throttled": _one("throttled", "1 where heat, power or a fault holds the clocks down."),
    "hw_errors": _Family(
        text="Errors of the board.",
        fields=(
            ("ecc_corrected_total", "ecc_corrected"),
            ("ecc_uncorrected_total", "ecc_uncorrected"),
            ("xid_total", "xid"),
            ("pcie_replays_total", "pcie_replay"),
            ("nvlink_errors_total", "nvlink"),
        ),
        label="error_type",
        total=True,
    ),
    "hw_gpu_last_xid": _one("last_xid", "The number of the last Xid error."),
    "hw_gpu_pcie_generation": _one("pcie_generation", "PCI Express generation in use."),
    "hw_gpu_pcie_lanes": _one("pcie_lanes", "PCI Express lanes in use."),
    "hw_gpu_pcie_bytes_per_second": _Family(
        text="Bytes over PCI Express per second.",
        fields=(("pcie_tx_bytes_per_s", "transmit"), ("pcie_rx_bytes_per_s", "receive")),
        label="direction",
    ),
    "hw_gpu_nvlinks": _one("nvlinks", "NVLinks that are up."),
    "hw_gpu_nvlink_bytes": _Family(
        text="Bytes over NVLink.",
        fields=(("nvlink_tx_bytes_total", "transmit"), ("nvlink_rx_bytes_total", "receive")),
        label="direction",
        total=True,
    ),
    "zeta_replica_gpu_memory_bytes": _one(
        "process_memory_bytes", "GPU memory that the model process holds."
    ),
}

_OF_PROFILES = {
    "hw_gpu_engine_active_ratio": _one("engine_active_ratio", "Share of time with an engine busy."),
    "hw_gpu_sm_active_ratio": _one("sm_active_ratio", "Share of time with a warp, over all SMs."),
    "hw_gpu_sm_occupancy_ratio": _one("sm_occupancy_ratio", "Warps over those there could be."),
    "hw_gpu_pipe_active_ratio": _Family(
        text="Share of time in which units of a kind worked.",
        fields=(
            ("tensor_active_ratio", "tensor"),
            ("fp64_active_ratio", "fp64"),
            ("fp32_active_ratio", "fp32"),
            ("fp16_active_ratio", "fp16"),
        ),
        label="pipe",
    ),
    "hw_gpu_dram_active_ratio": _one("dram_active_ratio", "Share of time with memory moving."),
    "hw_gpu_io_bytes_per_second": _Family(
        text="Bytes over a link per second, by DCGM.",
        fields=(
            ("pcie_tx_bytes_per_s", "pcie transmit"),
            ("pcie_rx_bytes_per_s", "pcie receive"),
            ("nvlink_tx_bytes_per_s", "nvlink transmit"),
            ("nvlink_rx_bytes_per_s", "nvlink receive"),
        ),
        label="link",
    ),
}

Labelled = tuple[tuple[str, ...], Message]


def families(gpus: Iterable[tuple[Replica, GpuUse]]) -> Iterator[Metric]:
    """Yield the metrics of *gpus*, each with the replica that reported it."""
    boards = [((*replica, gpu.uuid, gpu.name), gpu) for replica, gpu in gpus]
    for name, family in _OF_BOARDS.items():
        yield _metric(name, family, LABELS, boards)
    profiles = [profile for labels, gpu in boards for profile in _profiles(labels, gpu)]
    for name, family in _OF_PROFILES.items():
        yield _metric(name, family, (*LABELS, "instance"), profiles)
    yield _reasons(boards)
    yield _holders(boards)
    yield from _instances(boards)


def _metric(
    name: str, family: _Family, labels: Sequence[str], messages: Iterable[Labelled]
) -> Metric:
    names = (*labels, family.label) if family.label else tuple(labels)
    kind = CounterMetricFamily if family.total else GaugeMetricFamily
    metric = kind(name, family.text, labels=names)
    for values, message in messages:
        known = {descriptor.name: value for descriptor, value in message.ListFields()}
        for field, said in family.fields:
            if field in known:
                metric.add_metric((*values, said) if family.label else values, float(known[field]))
    return metric


def _profiles(labels: tuple[str, ...], gpu: GpuUse) -> Iterator[Labelled]:
    """Yield the profile of the whole, then those of its instances."""
    yield (*labels, ""), gpu.profile
    for part in gpu.instances:
        yield (*labels, part.uuid), part.profile


def _reasons(boards: Iterable[tuple[tuple[str, ...], GpuUse]]) -> Metric:
    metric = GaugeMetricFamily(
        "hw_gpu_clock_reason", "1 for each reason for the clocks.", labels=(*LABELS, "reason")
    )
    for labels, gpu in boards:
        for reason in gpu.clock_reasons:
            if reason in ClockReason.values():
                said = ClockReason.Name(reason).removeprefix("CLOCK_REASON_").lower()
                metric.add_metric((*labels, said), 1.0)
    return metric


def _holders(boards: Iterable[tuple[tuple[str, ...], GpuUse]]) -> Metric:
    metric = GaugeMetricFamily(
        "hw_gpu_process_memory_bytes",
        "GPU memory that each process holds.",
        labels=(*LABELS, "process_pid"),
    )
    for labels, gpu in boards:
        for holder in gpu.processes:
            if holder.HasField("memory_bytes"):
                metric.add_metric((*labels, str(holder.pid)), holder.memory_bytes)
    return metric


def _instances(boards: Iterable[tuple[tuple[str, ...], GpuUse]]) -> Iterator[Metric]:
    parts = [((*labels, part.uuid), part) for labels, gpu in boards for part in gpu.instances]
    for name, field, text in (
        ("hw_gpu_instance_memory_usage_bytes", "memory_used_bytes", "Memory in use."),
        ("hw_gpu_instance_memory_limit_bytes", "memory_total_bytes", "Memory there is."),
    ):
        yield _metric(name, _one(field, f"{text} Of a MIG instance."), (*LABELS, "instance"), parts)
