"""`python -m router_svc --config FILE`: run the router."""

import argparse
from pathlib import Path

from router_svc.app import serve
from services.kit import config as kit_config
from services.kit import server


def main() -> None:
    """Read the configuration and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="router_svc", description="Routes requests to models.")
    parser.add_argument("--config", type=Path, required=True, help="the fleet's TOML file")
    config = kit_config.load(parser.parse_args().config)
    server.run("router", serve(config), config.fleet.log_level)


if __name__ == "__main__":
    main()
