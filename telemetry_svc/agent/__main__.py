"""`python -m telemetry_svc.agent --config FILE --model NAME --replica N`: watch one replica."""

import argparse
import asyncio
import contextlib
import time

import structlog

from services.kit import aio, metrics
from services.kit.channel import open_channel
from services.kit.command import Process, start
from services.kit.config import FleetConfig, Replica, model_named, replica_name
from services.kit.errors import ConfigError
from telemetry_svc import prometheus, wire
from telemetry_svc.agent.collect import Sampler, ThisMachine
from telemetry_svc.agent.report import Reporter, heartbeat_s

log = structlog.get_logger()

LATE = 3.0
"""A sample that takes so many intervals is late: until it is there, nothing is promised."""


async def watch(config: FleetConfig, model: str, index: int, replica: Replica) -> None:
    """Report *replica*, number *index* of *model*, until the process is told to stop."""
    stopped, telemetry, name = aio.stop_event(), config.telemetry, replica_name(model, index)
    async with (
        open_channel(replica.listen, config.server) as to_model,
        open_channel(telemetry.listen, config.server) as to_telemetry,
    ):
        sampler = Sampler(
            model=model,
            replica=name,
            address=replica.listen,
            channel=to_model,
            machine=ThisMachine(dcgm=replica.dcgm),
        )
        reporter = Reporter(
            to_telemetry,
            heartbeat_s=heartbeat_s(telemetry.silent_after_s),
            read_every_s=telemetry.report_interval_s,
        )
        prometheus.expose(lambda: _shown(reporter))
        metrics.serve(replica.agent_metrics)
        log.info("watching", replica=name, address=replica.listen)
        await report_until(stopped, sampler, reporter, telemetry.report_interval_s)


async def report_until(
    stopped: asyncio.Event, sampler: Sampler, reporter: Reporter, interval_s: float
) -> None:
    """Sample and report, until *stopped* is set; whatever breaks either of them is raised."""
    async with asyncio.TaskGroup() as group:
        reporting = group.create_task(reporter.run())
        await _sample_until(stopped, sampler, reporter, interval_s)
        reporting.cancel()


async def _sample_until(
    stopped: asyncio.Event, sampler: Sampler, reporter: Reporter, interval_s: float
) -> None:
    """Offer a sample every *interval_s*; a late one does not make the next ones hurry."""
    next_s, loop = time.monotonic(), asyncio.get_running_loop()
    while not stopped.is_set():
        late = loop.call_later(LATE * interval_s, reporter.doubt)
        reporter.offer(await sampler.sample())
        late.cancel()
        next_s = max(next_s + interval_s, time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(next_s - time.monotonic()):
                await stopped.wait()


def _shown(reporter: Reporter) -> list[prometheus.Shown]:
    """Return the replica for the agent's own metrics page; quantiles are telemetry's to tell."""
    report = reporter.newest
    if report is None:
        return []
    age_s = max(0.0, time.time() - report.time.seconds - report.time.nanos / 1e9)
    shown = prometheus.Shown(report=report, age_s=age_s, health=wire.health(report), tasks={})
    return [shown]


def main() -> None:
    """Watch until told to stop."""
    start("telemetry_svc.agent", __doc__, process, of_model=True, of_replica=True)


def process(config: FleetConfig, its: argparse.Namespace) -> Process:
    """Name the agent of a replica and its work. Raises ConfigError for one that is not there."""
    replicas = model_named(config, its.model).replicas
    if not 0 <= its.replica < len(replicas):
        raise ConfigError(f"--replica {its.replica}: {its.model} has {len(replicas)}")
    work = watch(config, its.model, its.replica, replicas[its.replica])
    return f"agent {replica_name(its.model, its.replica)}", work


if __name__ == "__main__":
    main()
