"""Run one replica of one model."""

from services.kit.command import start
from services.kit.config import replica_name
from services.model.process import serve


def main() -> None:
    """Serve until told to stop."""
    start(
        "services.model",
        __doc__,
        lambda config, its: (
            replica_name(its.model, its.replica),
            serve(config, its.model, its.replica),
        ),
        of_model=True,
        of_replica=True,
    )


if __name__ == "__main__":
    main()
