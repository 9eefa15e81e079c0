"""Run one replica of one model."""

import argparse
from pathlib import Path

from services.kit import config as kit_config
from services.kit import server
from services.kit.errors import ConfigError
from services.model.process import serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m services.model", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the fleet's TOML file")
    parser.add_argument("--model", required=True, help="a model's name in that file")
    parser.add_argument("--replica", type=int, default=0, help="its replica, from 0")
    arguments = parser.parse_args()
    process = kit_config.replica_name(arguments.model, arguments.replica)
    try:
        config = kit_config.load(arguments.config)
    except ConfigError as error:
        parser.error(str(error))
    server.run(process, serve(config, arguments.model, arguments.replica), config.fleet.log_level)


if __name__ == "__main__":
    main()
