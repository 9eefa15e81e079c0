"""The `zeta` program; cli.app wires the commands together."""

from zeta_client.cli.app import app, main

__all__ = ["app", "main"]
