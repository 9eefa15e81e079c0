"""`python -m telemetry_svc --config FILE`: run the telemetry service."""

import argparse
from functools import partial
from pathlib import Path

import msgspec
from zeta.telemetry.v1 import telemetry_service_pb2, telemetry_service_pb2_grpc

from services.kit import metrics
from services.kit.config import FleetConfig, load
from services.kit.errors import ConfigError
from services.kit.server import run, serving
from telemetry_svc import prometheus
from telemetry_svc.servicer import TelemetryServicer

NAME = telemetry_service_pb2.DESCRIPTOR.services_by_name["TelemetryService"].full_name
DRAIN_S = 0.2
"""Streams here have no end of their own to wait for; queries take milliseconds."""


async def serve(config: FleetConfig) -> None:
    """Serve until the process is told to stop."""
    servicer = TelemetryServicer(config.telemetry)
    add = partial(telemetry_service_pb2_grpc.add_TelemetryServiceServicer_to_server, servicer)
    grace_s = min(DRAIN_S, config.server.drain_grace_s)
    settings = msgspec.structs.replace(config.server, drain_grace_s=grace_s)
    async with serving(config.telemetry.listen, settings, {NAME: add}) as server:
        prometheus.expose(servicer.shown)
        metrics.serve(config.telemetry.metrics)
        await server.set_serving()
        await servicer.sweep_until(server.stopped)
        await servicer.close()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m telemetry_svc", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the fleet's TOML file")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
    except ConfigError as error:
        parser.error(str(error))
    run("telemetry", serve(config), config.fleet.log_level)


if __name__ == "__main__":
    main()
