"""The `zeta` program; cli.app wires the commands together."""

import sys


def main() -> None:
    """Run the program. Ctrl-C ends it without a word, also while it is being loaded."""
    try:
        from zeta_client.cli import app  # noqa: PLC0415 - loads for a second
    except KeyboardInterrupt:
        sys.exit(130)
    app.main()
