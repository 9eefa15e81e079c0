"""The whole fleet as a person meets it: started, measured, stopped, demonstrated."""

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from tests.system.calls import TIMEOUT_S, Reader, answer, endless, question
from tests.system.fleet import ROOT, STOPPED_WITHIN_S, ZETA, Fleet, on_sockets, running

READY_WITHIN_S = 60.0
MEMORY_BYTES = 2.5 * 2**30


def test_ready_soon(fleet: Fleet) -> None:
    """A laptop's two cores have the whole fleet serving within a minute, and usually a third."""
    print(f"ready after {fleet.ready_s:.1f} s")  # noqa: T201 - shown with -rA

    assert fleet.ready_s < READY_WITHIN_S


def test_fits_in_memory(fleet: Fleet) -> None:
    """All processes together stay below 2.5 GiB; shared pages count once."""
    used = {" ".join(p.cmdline()[3:8]): p.memory_full_info().pss for p in fleet.processes()}
    print(f"memory {sum(used.values()) / 2**20:.0f} MiB in {len(used)} processes")  # noqa: T201 - as above

    assert sum(used.values()) < MEMORY_BYTES, used


def test_every_process_is_one_of_its_own(fleet: Fleet) -> None:
    """Models, agents, embedding, telemetry and router run as separate processes."""
    models = len(fleet.config.models)

    assert len(fleet.processes()) == 1 + 2 + len(fleet.config.embedding.replicas) + 2 * models


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_told_to_stop_it_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, SIGTERM and the end of its terminal drain, stop every process and free every port.

    What runs is answered to its end.
    """
    with running(tmp_path) as up:
        family = up.processes()
        async with up.channel(up.router) as channel:
            stub = InferenceServiceStub(channel)
            streams = [
                Reader(stub.Generate(endless(max_tokens=300), timeout=TIMEOUT_S)) for _ in range(6)
            ]
            reading = asyncio.gather(*(reader.read() for reader in streams))
            await asyncio.gather(*(reader.has_text.wait() for reader in streams))
            up.supervisor.send_signal(number)
            await reading
        _, left = await asyncio.to_thread(psutil.wait_procs, family, timeout=STOPPED_WITHIN_S)
        connections = psutil.net_connections("inet")
        taken = {c.laddr.port for c in connections if c.laddr and c.status == "LISTEN"}

    assert [reader.end for reader in streams] == ["finished"] * 6
    assert not left
    assert family[0].returncode == 0, "the supervisor did it, and not its absence"  # type: ignore[attr-defined] # set by wait_procs
    assert int(up.router.rpartition(":")[2]) not in taken


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    """Even kill -9 of the supervisor ends the fleet: its children notice that they are alone."""
    with running(tmp_path) as up:
        family = up.processes()
        up.supervisor.kill()
        _, left = psutil.wait_procs(family, timeout=STOPPED_WITHIN_S)

    assert not left


async def test_unix_sockets(tmp_path: Path) -> None:
    """A fleet on one machine needs no port at all."""
    with running(tmp_path, on_sockets(tmp_path), free_ports=False) as up:
        async with up.channel(up.router) as channel:
            got = await answer(InferenceServiceStub(channel).Generate(question(), timeout=30.0))
        sockets = [c for p in up.processes() for c in p.net_connections("tcp")]

    assert up.router.startswith("unix:")
    assert got.text
    assert not sockets


async def test_the_demo_runs() -> None:
    """`zeta demo` ends well, and its summary holds what it promises."""
    demo = await asyncio.create_subprocess_exec(
        ZETA,
        "demo",
        "--prompts",
        "40",
        "--json",
        cwd=ROOT,
        stdout=-1,
        stderr=-1,
    )
    out, err = await asyncio.wait_for(demo.communicate(), 180.0)

    assert demo.returncode == 0, err.decode()[-4000:]
    summary = json.loads(out.decode().splitlines()[-1])
    assert summary["prompts"] == 40
    accuracy = summary["accuracy"]
    assert {"routed", "oracle", "general-4b", "coder-7b", "reasoner-14b"} <= accuracy.keys()
    assert 0.0 < accuracy["routed"] <= accuracy["oracle"] <= 1.0
    assert 0.0 < summary["ttft_s"]["p50"] <= summary["ttft_s"]["p99"]
    for split in ("by_model", "by_plan"):
        assert sum(part["answers"] for part in summary[split].values()) == 40
