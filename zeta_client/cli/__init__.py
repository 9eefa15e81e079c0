"""The `zeta` program; cli.main wires the commands together."""

from services.kit.log import quiet_grpc

quiet_grpc()  # gRPC reads its verbosity when it is imported, which the commands do

from zeta_client.cli.app import app, main  # noqa: E402

__all__ = ["app", "main"]
