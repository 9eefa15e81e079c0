"""`python -m router_svc --config FILE`: run the router."""

import argparse

from router_svc.app import serve
from router_svc.workers import own_command, supervise, worker_of
from services.kit.aio import fast_loop
from services.kit.command import Process, start
from services.kit.config import FleetConfig


def main() -> None:
    """Serve until told to stop."""
    start("router_svc", __doc__, _process, of_worker=True, new_loop=fast_loop)


def _process(config: FleetConfig, arguments: argparse.Namespace) -> Process:
    if config.router.workers > 1 and not arguments.worker:
        return "router", supervise(config, own_command())
    return "router", serve(config, worker_of(arguments.worker, config))


if __name__ == "__main__":
    main()
