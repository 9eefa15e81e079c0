"""A GPU at one moment. None anywhere: the board, its driver or the permissions do not say.

Figures are named as in `zeta.telemetry.v1.GpuUse`, which they travel in.
"""

from dataclasses import dataclass, field
from enum import Enum, auto


class Reason(Enum):
    """Why clocks are what they are; named as in `zeta.telemetry.v1.ClockReason`."""

    GPU_IDLE = auto()
    APPLICATION_CLOCKS = auto()
    SW_POWER_CAP = auto()
    HW_SLOWDOWN = auto()
    SYNC_BOOST = auto()
    SW_THERMAL = auto()
    HW_THERMAL = auto()
    HW_POWER_BRAKE = auto()
    DISPLAY_CLOCK = auto()
    BOARD_LIMIT = auto()
    RELIABILITY = auto()


THROTTLING = frozenset(Reason) - {
    Reason.GPU_IDLE,
    Reason.APPLICATION_CLOCKS,
    Reason.SYNC_BOOST,
    Reason.DISPLAY_CLOCK,
}
"""Reasons that nobody chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a board is, and how full."""

    utilization_ratio: float | None = None
    memory_busy_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What it draws, and how warm that makes it."""

    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    memory_temperature_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """How fast it runs, and what holds it down."""

    sm_clock_hz: float | None = None
    max_sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    reasons: tuple[Reason, ...] | None = None

    @property
    def throttled(self) -> bool | None:
        """Whether heat, power or a fault holds the clocks down."""
        return None if self.reasons is None else not THROTTLING.isdisjoint(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """What went wrong on it, counted since the driver (Xids: the agent) started."""

    ecc_corrected_total: int | None = None
    ecc_uncorrected_total: int | None = None
    xid_total: int | None = None
    last_xid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What goes in and out of it."""

    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    pcie_tx_bytes_per_s: float | None = None
    pcie_rx_bytes_per_s: float | None = None
    pcie_replays_total: int | None = None
    nvlinks: int | None = None
    nvlink_tx_bytes_total: int | None = None
    nvlink_rx_bytes_total: int | None = None
    nvlink_errors_total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process on a board."""

    pid: int
    memory_bytes: int | None = None
    instance_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How well a board, or a part of one, is used; measured inside it by DCGM."""

    engine_active_ratio: float | None = None
    sm_active_ratio: float | None = None
    sm_occupancy_ratio: float | None = None
    tensor_active_ratio: float | None = None
    fp64_active_ratio: float | None = None
    fp32_active_ratio: float | None = None
    fp16_active_ratio: float | None = None
    dram_active_ratio: float | None = None
    pcie_tx_bytes_per_s: float | None = None
    pcie_rx_bytes_per_s: float | None = None
    nvlink_tx_bytes_per_s: float | None = None
    nvlink_rx_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A part of a board that is cut into instances (MIG)."""

    uuid: str
    instance_id: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    profile: Profile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """All of it."""

    uuid: str
    name: str
    index: int
    load: Load = field(default_factory=Load)
    power: Power = field(default_factory=Power)
    clocks: Clocks = field(default_factory=Clocks)
    errors: Errors = field(default_factory=Errors)
    links: Links = field(default_factory=Links)
    process_memory_bytes: int | None = None
    """Held by the model process."""
    processes: tuple[Holder, ...] = ()
    mig_enabled: bool | None = None
    instances: tuple[Instance, ...] = ()
    profile: Profile | None = None
