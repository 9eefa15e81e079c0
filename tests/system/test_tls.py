"""Mutual TLS from the configuration, with certificates as docs/operations.md makes them."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit import config
from services.kit.channel import open_channel
from services.kit.probe import SERVING, health
from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import ROOT, Fleet, running, with_server

DAYS = "2"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority, certificates for the fleet and a guest, and a stranger's."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["/bin/sh", "-ec", manual()], cwd=folder, check=True, capture_output=True)
    signed(folder, "guest", by="ca")
    authority(folder, "other-ca")
    signed(folder, "stranger", by="other-ca")
    return folder


def manual() -> str:
    """Return the commands that the manual gives for an authority and the fleet's certificate."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("## TLS and mutual TLS")[2]
    return section.partition("```sh\n")[2].partition("```")[0]


def openssl(folder: Path, *arguments: str) -> None:
    program = shutil.which("openssl") or "openssl"
    subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    """Make a self-signed authority: NAME.pem and NAME.key."""
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(folder, "req", "-x509", *new, *files, "-days", DAYS, "-subj", f"/CN={name}")


def signed(folder: Path, name: str, *, by: str) -> None:
    """Make NAME.pem and NAME.key for this machine, signed by an authority."""
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl(folder, "req", "-new", *new, *files)
    (folder / "names.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    by_whom = ("-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial")
    out = ("-out", f"{name}.pem", "-days", DAYS, "-extfile", "names.cnf")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *by_whom, *out)


def settings(certificates: Path, name: str, **more: object) -> config.Server:
    """Return servers' and channels' settings for the holder of *name*'s certificate."""
    files = {"cert": f"{name}.pem", "key": f"{name}.key", "ca": "ca.pem"}
    paths = {kind: str(certificates / file) for kind, file in files.items()}
    return config.Server(tls=config.Tls(**paths, require_client_cert=True, **more))  # type: ignore[arg-type] # by name


@pytest.fixture(scope="module")
def secure(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet in which every connection is mutual TLS."""
    own = settings(certificates, "fleet", allowed_names=("fleet",))
    with running(tmp_path_factory.mktemp("secure"), with_server(own)) as up:
        yield up


async def test_the_fleet_works_over_mutual_tls(secure: Fleet) -> None:
    """With certificates on every connection a request is routed, answered and streamed."""
    async with secure.channel(secure.router) as channel:
        got = await answer(InferenceServiceStub(channel).Generate(question(), timeout=TIMEOUT_S))

    assert got.text


@pytest.mark.parametrize("where", ["router", "telemetry", "embedding", "model"])
async def test_strangers_are_refused(secure: Fleet, certificates: Path, where: str) -> None:
    """No server talks in the clear, without a certificate, or to another authority's."""
    address = secure.model("coder-7b") if where == "model" else str(getattr(secure, where))
    trusting = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())

    assert await health(address, "", secure.config.server, 5.0) == SERVING
    assert await health(address, "", config.Server(), 1.0) != SERVING
    assert await health(address, "", settings(certificates, "stranger"), 1.0) != SERVING
    async with grpc.aio.secure_channel(address, trusting) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await check(b"", timeout=1.0)
    assert failed.value.code() in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }


async def test_a_name_that_is_not_allowed_is_refused(secure: Fleet, certificates: Path) -> None:
    """A certificate that our authority signed, but for somebody else, is not enough."""
    guest = settings(certificates, "guest")
    async with open_channel(secure.router, guest) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await answer(InferenceServiceStub(channel).Generate(question(), timeout=TIMEOUT_S))

    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "guest" in (failed.value.details() or "")
