"""What a Python user holds: the client, the command line and the task generator."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeta_client.async_client import AsyncClient
    from zeta_client.client import Client
    from zeta_client.embed import g_zeta_embed_text

__all__ = ["AsyncClient", "Client", "g_zeta_embed_text"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the task generator alone needs no gRPC."""
    from importlib import import_module  # noqa: PLC0415 - as above

    homes = {"AsyncClient": "async_client", "Client": "client", "g_zeta_embed_text": "embed"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
