"""`python -m router_svc --config FILE`: run the router."""

import argparse
from pathlib import Path

from router_svc.app import serve
from services.kit import config as kit_config
from services.kit import server
from services.kit.errors import ConfigError


def main() -> None:
    """Read the configuration and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m router_svc", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the fleet's TOML file")
    arguments = parser.parse_args()
    try:
        config = kit_config.load(arguments.config)
    except ConfigError as error:
        parser.error(str(error))
    server.run("router", serve(config), config.fleet.log_level)


if __name__ == "__main__":
    main()
