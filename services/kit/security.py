"""TLS and mutual TLS from the configuration."""

from pathlib import Path

import grpc

from services.kit.config import Tls
from services.kit.errors import ConfigError


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Build what a server shows and asks for. Raises ConfigError for unreadable files."""
    return grpc.ssl_server_credentials(
        [(_read(tls.key), _read(tls.cert))],
        root_certificates=_read(tls.ca) if tls.ca else None,
        require_client_auth=tls.require_client_cert,
    )


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Build what a caller trusts, and shows where servers ask. Raises ConfigError."""
    mutual = tls.require_client_cert
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca) if tls.ca else None,
        private_key=_read(tls.key) if mutual else None,
        certificate_chain=_read(tls.cert) if mutual else None,
    )


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"tls: cannot read {path!r}: {error.strerror}") from error
