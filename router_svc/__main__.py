"""`python -m router_svc --config FILE`: run the router."""

from router_svc.app import serve
from services.kit.command import start


def main() -> None:
    """Serve until told to stop."""
    start("router_svc", __doc__, lambda config, _: ("router", serve(config)))


if __name__ == "__main__":
    main()
