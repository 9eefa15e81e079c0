"""Ask one process whether it serves, for container health checks; the exit code is the answer.

python -m services.kit.probe HOST:PORT [SERVICE] [--config FILE]
python -m services.kit.probe http://HOST:PORT/metrics

The second form is for sidecar agents: they serve no gRPC, and their metrics page is their
sign of life. `--config` is needed where the fleet uses TLS.
"""

import argparse
import asyncio
import sys
import urllib.request
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from services.kit import config
from services.kit.channel import open_channel

SERVING = "SERVING"


async def health(target: str, service: str, settings: config.Server, timeout_s: float) -> str:
    """Return *service*'s health by name; an empty *service* stands for the whole process.

    A process that cannot be asked has the name of the status with which the question failed.
    """
    async with open_channel(target, settings) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = await check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.aio.AioRpcError as failed:
            return failed.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def page(url: str, timeout_s: float) -> str:
    """Return SERVING where *url* is served, else what stood in the way."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):  # noqa: S310 - http: by the caller
            return SERVING
    except OSError as error:
        return str(error)


def main() -> int:
    """Probe what the command line names; 0 says that it serves."""
    parser = argparse.ArgumentParser(prog="services.kit.probe", description=__doc__)
    parser.add_argument("target", help="HOST:PORT, unix:PATH or http://HOST:PORT/PATH")
    parser.add_argument("service", nargs="?", default="", help="full gRPC service name")
    parser.add_argument("--config", type=Path, help="where the TLS settings are")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds (default: 3)")
    given = parser.parse_args()
    if given.target.startswith("http://"):
        answer = page(given.target, given.timeout)
    else:
        settings = config.load(given.config).server if given.config else config.Server()
        answer = asyncio.run(health(given.target, given.service, settings, given.timeout))
    print(answer, file=sys.stderr)  # noqa: T201 - the engine keeps what a health check says
    return 0 if answer == SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
