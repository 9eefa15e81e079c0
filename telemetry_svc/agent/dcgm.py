"""Profiling figures of GPUs, from a `dcgm-exporter` on the same machine.

It speaks Prometheus' text format over HTTP; its metrics bear the names of DCGM's fields.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from http.client import OK, HTTPConnection, HTTPException

import structlog
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from telemetry_svc.agent.board import Gpu, Profile

log = structlog.get_logger()

ANSWER_TIMEOUT_S = 1.0
MOST_BYTES = 8 << 20
_BLANK = 2.0**47
"""DCGM's values from here on stand for "not known"."""
_RATIOS = {
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "engine_active_ratio",
    "DCGM_FI_PROF_SM_ACTIVE": "sm_active_ratio",
    "DCGM_FI_PROF_SM_OCCUPANCY": "sm_occupancy_ratio",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "tensor_active_ratio",
    "DCGM_FI_PROF_PIPE_FP64_ACTIVE": "fp64_active_ratio",
    "DCGM_FI_PROF_PIPE_FP32_ACTIVE": "fp32_active_ratio",
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE": "fp16_active_ratio",
    "DCGM_FI_PROF_DRAM_ACTIVE": "dram_active_ratio",
}
_RATES = {
    "DCGM_FI_PROF_PCIE_TX_BYTES": "pcie_tx_bytes_per_s",
    "DCGM_FI_PROF_PCIE_RX_BYTES": "pcie_rx_bytes_per_s",
    "DCGM_FI_PROF_NVLINK_TX_BYTES": "nvlink_tx_bytes_per_s",
    "DCGM_FI_PROF_NVLINK_RX_BYTES": "nvlink_rx_bytes_per_s",
}
_PREFIX = "DCGM_FI_PROF_"

Place = tuple[str, int | None]
"""A board's unique id, and the number of an instance on it."""


class Dcgm:
    """Asks the exporter at *address*, HOST:PORT; empty: there is none."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._answers: bool | None = None

    def profiled(self, gpus: list[Gpu]) -> list[Gpu]:
        """Return *gpus* with what the exporter says of them; as they are where it says nothing."""
        if not self._address or not gpus:
            return gpus
        profiles = self._read()
        return [_profiled(gpu, profiles) for gpu in gpus] if profiles else gpus

    def _read(self) -> Mapping[Place, Profile]:
        try:
            found = profiles_of(_page(self._address))
        except (OSError, HTTPException, ValueError) as error:
            self._note(answers=False, reason=str(error))
            return {}
        self._note(answers=True)
        return found

    def _note(self, *, answers: bool, **why: str) -> None:
        """Log a change once."""
        if answers != self._answers:
            log.info("dcgm exporter", address=self._address, answers=answers, **why)
        self._answers = answers


def _page(address: str) -> str:
    with closing(HTTPConnection(address, timeout=ANSWER_TIMEOUT_S)) as connection:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        if response.status != OK:
            raise ValueError(f"status {response.status}")
        return response.read(MOST_BYTES).decode()


def profiles_of(text: str) -> dict[Place, Profile]:
    """Read a page of the exporter. Raises ValueError where it is none."""
    found: dict[Place, dict[str, float]] = {}
    for sample in _samples(text):
        name = _RATIOS.get(sample.name) or _RATES.get(sample.name)
        most = 1.0 if sample.name in _RATIOS else _BLANK
        if name and 0 <= sample.value <= most and sample.value != _BLANK:
            found.setdefault(_place(sample.labels), {})[name] = sample.value
    return {place: Profile(**figures) for place, figures in found.items()}


def _samples(text: str) -> Iterator[Sample]:
    """Parse the profiling figures; the other hundreds of lines are not looked into."""
    lines = [line for line in text.splitlines() if line.startswith(_PREFIX)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        yield from family.samples


def _place(labels: Mapping[str, str]) -> Place:
    instance = labels.get("GPU_I_ID", "")
    return labels.get("UUID", ""), int(instance) if instance else None


def _profiled(gpu: Gpu, profiles: Mapping[Place, Profile]) -> Gpu:
    parts = tuple(
        replace(part, profile=profiles.get((gpu.uuid, part.instance_id))) for part in gpu.instances
    )
    return replace(gpu, profile=profiles.get((gpu.uuid, None)), instances=parts)
