"""The command line of every process: `--config FILE`, and `--model M` and `--replica N` of some."""

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

from services.kit import config as kit_config
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from services.kit.server import run

Process: TypeAlias = tuple[str, Coroutine[Any, Any, None]]
"""What logs call the process, and what it does."""


def start(
    module: str,
    description: str | None,
    process: Callable[[FleetConfig, argparse.Namespace], Process],
    *,
    of_model: bool = False,
    of_replica: bool = False,
    of_worker: bool = False,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Read the command line and the configuration, and run what *process* makes of them.

    A mistake in either, also one that *process* raises as ConfigError, is one message on stderr
    and exit code 2.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--config", type=Path, required=True, help="the fleet's TOML file")
    if of_model:
        parser.add_argument("--model", required=True, help="a model's name in that file")
    if of_replica:
        parser.add_argument("--replica", type=int, default=0, help="its number, from 0")
    if of_worker:
        parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        config = kit_config.load(arguments.config)
        name, work = process(config, arguments)
    except ConfigError as error:
        parser.error(str(error))
    run(name, work, config.fleet.log_level, new_loop=new_loop)
