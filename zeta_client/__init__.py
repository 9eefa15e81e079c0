"""What a Python user holds: the client, the command line and the task generator."""

from typing import TYPE_CHECKING, Any

import services.kit as _before_grpc  # noqa: F401 - says why

if TYPE_CHECKING:
    from router_svc.verifiers import verify
    from zeta_client.async_client import AsyncClient
    from zeta_client.client import Client
    from zeta_client.embed import g_zeta_embed_text

__all__ = ["AsyncClient", "Client", "g_zeta_embed_text", "verify"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the task generator alone needs no gRPC."""
    from importlib import import_module  # noqa: PLC0415 - as above

    homes = {
        "AsyncClient": "zeta_client.async_client",
        "Client": "zeta_client.client",
        "g_zeta_embed_text": "zeta_client.embed",
        "verify": "router_svc.verifiers",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
