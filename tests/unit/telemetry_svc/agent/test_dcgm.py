"""Profiling figures from a server that speaks as `dcgm-exporter` does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from telemetry_svc.agent.board import Gpu, Instance, Profile
from telemetry_svc.agent.dcgm import Dcgm, profiles_of

LABELS = (
    'gpu="0",UUID="GPU-0",pci_bus_id="00000000:1A:00.0",device="nvidia0",'
    'modelName="NVIDIA H200",Hostname="node-1",DCGM_FI_DRIVER_VERSION="570.86.15"'
)
PAGE = f"""# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{{{LABELS}}} 1980
# HELP DCGM_FI_PROF_GR_ENGINE_ACTIVE Ratio of time the graphics engine is active.
# TYPE DCGM_FI_PROF_GR_ENGINE_ACTIVE gauge
DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{LABELS}}} 0.875000
# HELP DCGM_FI_PROF_PIPE_TENSOR_ACTIVE Ratio of cycles the tensor pipe is active.
# TYPE DCGM_FI_PROF_PIPE_TENSOR_ACTIVE gauge
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{LABELS}}} 0.250000
# TYPE DCGM_FI_PROF_DRAM_ACTIVE gauge
DCGM_FI_PROF_DRAM_ACTIVE{{{LABELS}}} 140737488355328.000000
# HELP DCGM_FI_PROF_PCIE_TX_BYTES The rate of data transmitted over the PCIe bus.
# TYPE DCGM_FI_PROF_PCIE_TX_BYTES counter
DCGM_FI_PROF_PCIE_TX_BYTES{{{LABELS}}} 1300000000
# TYPE DCGM_FI_PROF_PCIE_RX_BYTES counter
DCGM_FI_PROF_PCIE_RX_BYTES{{{LABELS}}} 140737488355328
# TYPE DCGM_FI_PROF_SM_ACTIVE gauge
DCGM_FI_PROF_SM_ACTIVE{{{LABELS},GPU_I_PROFILE="1g.18gb",GPU_I_ID="9"}} 0.5
"""
BOARD = Gpu(uuid="GPU-0", name="NVIDIA H200", index=0)
WHOLE = Profile(engine_active_ratio=0.875, tensor_active_ratio=0.25, pcie_tx_bytes_per_s=1.3e9)


@contextmanager
def exporter(page: bytes, status: int = 200) -> Iterator[str]:
    """Serve *page* on a local port; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = status if self.path == "/metrics" else 404
            self.send_response(found)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments: object) -> None:
            """Nothing to stderr."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


def test_reads_the_exporters_page() -> None:
    """Ratios and rates of the board; DCGM's blank values are not known."""
    with exporter(PAGE.encode()) as address:
        (gpu,) = Dcgm(address).profiled([BOARD])

    assert gpu.profile == WHOLE


def test_a_part_of_a_board_has_its_own_profile() -> None:
    """A board cut into instances has figures per instance, by number."""
    parts = (Instance(uuid="MIG-a", instance_id=9), Instance(uuid="MIG-b", instance_id=10))
    with exporter(PAGE.encode()) as address:
        (gpu,) = Dcgm(address).profiled([Gpu(uuid="GPU-0", name="", index=0, instances=parts)])

    assert [part.profile for part in gpu.instances] == [Profile(sm_active_ratio=0.5), None]


def test_a_board_that_the_exporter_does_not_know_has_no_profile() -> None:
    """Figures of another board are not its own."""
    with exporter(PAGE.encode()) as address:
        (gpu,) = Dcgm(address).profiled([Gpu(uuid="GPU-1", name="", index=1)])

    assert gpu.profile is None


@pytest.mark.parametrize(
    ("page", "status"),
    [
        (b"", 200),
        (b"internal error", 500),
        (b"\xff\xfe", 200),
        (b'DCGM_FI_PROF_SM_ACTIVE{gpu="0"', 200),
        (b"DCGM_FI_PROF_SM_ACTIVE", 200),
        (b'DCGM_FI_PROF_SM_ACTIVE{UUID="GPU-0"} NaN\n', 200),
        (b'DCGM_FI_PROF_SM_ACTIVE{UUID="GPU-0"} -1\n', 200),
        (b'DCGM_FI_PROF_SM_ACTIVE{UUID="GPU-0",GPU_I_ID="x"} 0.5\n', 200),
    ],
)
def test_a_page_that_makes_no_sense_changes_nothing(page: bytes, status: int) -> None:
    """The board's other figures stay as they are."""
    with exporter(page, status) as address:
        assert Dcgm(address).profiled([BOARD]) == [BOARD]


def test_an_exporter_that_is_not_there_changes_nothing() -> None:
    """Nobody listens, and nothing breaks; it is found again when it comes."""
    with exporter(b"") as address:
        pass
    dcgm = Dcgm(address)

    assert dcgm.profiled([BOARD]) == [BOARD]


def test_without_an_address_nobody_is_asked() -> None:
    """The default."""
    assert Dcgm("").profiled([BOARD]) == [BOARD]


def test_figures_of_two_boards_are_kept_apart() -> None:
    """The board's id is what counts, not its number."""
    other = PAGE.replace("GPU-0", "GPU-1").replace("0.875000", "0.125000")
    found = profiles_of(PAGE + other)

    assert found["GPU-0", None] == WHOLE
    assert found["GPU-1", None].engine_active_ratio == 0.125
