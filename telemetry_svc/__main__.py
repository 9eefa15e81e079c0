"""`python -m telemetry_svc --config FILE`: run the telemetry service."""

from functools import partial

import msgspec
from zeta.telemetry.v1 import telemetry_service_pb2, telemetry_service_pb2_grpc

from services.kit import metrics
from services.kit.command import start
from services.kit.config import FleetConfig
from services.kit.server import Pings, serving
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
    # An agent that is gone without a word is found out when it counts as silent.
    silence_s = config.telemetry.silent_after_s
    pings = Pings(every_s=0.75 * silence_s, answer_s=0.25 * silence_s)
    async with serving(config.telemetry.listen, settings, {NAME: add}, pings=pings) as server:
        prometheus.expose(servicer.shown)
        metrics.serve(config.telemetry.metrics)
        await server.set_serving()
        await servicer.sweep_until(server.stopped)
        await servicer.close()


def main() -> None:
    """Serve until told to stop."""
    start("telemetry_svc", __doc__, lambda config, _: ("telemetry", serve(config)))


if __name__ == "__main__":
    main()
