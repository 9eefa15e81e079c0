"""The contract itself: linted, formatted, never broken, and the stubs fresh."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from zeta.inference.v1 import inference_service_pb2

from services.kit import errors
from services.kit.errors import ZetaError

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
BUF = Path(sys.executable).with_name("buf")
SOURCES = sorted(p.relative_to(PROTOS) for p in PROTOS.glob("zeta/**/*.proto"))
Methods = list[tuple[str, descriptor_pb2.MethodOptions]]


def buf(*arguments: str) -> None:
    """Run buf at the repository's root; what it says becomes the failure."""
    done = subprocess.run(
        [BUF, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def descriptors() -> Iterator[FileDescriptor]:
    """Import every stub and yield its descriptor."""
    for source in SOURCES:
        name = ".".join(source.with_suffix("").parts)
        yield importlib.import_module(f"{name}_pb2").DESCRIPTOR
        importlib.import_module(f"{name}_pb2_grpc")


@pytest.fixture(scope="module")
def methods() -> Methods:
    """Every rpc of the contract with its options."""
    return [
        (method.full_name, method.GetOptions())
        for file in descriptors()
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def test_stubs_are_fresh(tmp_path: Path) -> None:
    """Generating again gives the committed stubs, byte for byte, and no file more or less."""
    script = [sys.executable, "protos/generate.py", str(tmp_path / "gen")]
    subprocess.run(script, cwd=ROOT, check=True, timeout=120)

    assert stubs(tmp_path / "gen") == stubs(PROTOS / "gen")


def stubs(folder: Path) -> dict[str, bytes]:
    """Return what is generated in *folder*, caches of the interpreter aside."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }


def test_lint() -> None:
    """The contract keeps buf's STANDARD and COMMENTS rules."""
    buf("lint")


def test_format() -> None:
    """The contract is written as buf writes it."""
    buf("format", "protos", "--diff", "--exit-code")


def test_nothing_released_is_broken() -> None:
    """Callers built against the released v1 go on working.

    The baseline is that release: `buf build --exclude-source-info -o protos/baseline.binpb`,
    done again with each release.
    """
    buf("breaking", "--against", "protos/baseline.binpb")


def test_all_services_are_there(methods: Methods) -> None:
    """The contract is the six services of v1, KServe's, and gRPC's own for load reports."""
    assert {name.rpartition(".")[0] for name, _ in methods} == {
        "zeta.inference.v1.CallService",
        "zeta.inference.v1.InferenceService",
        "zeta.embedding.v1.EmbeddingService",
        "zeta.router.v1.RouterService",
        "zeta.telemetry.v1.TelemetryService",
        "zeta.model.v1.ModelControlService",
        "inference.GRPCInferenceService",
        "xds.service.orca.v3.OpenRcaService",
    }


def test_every_rpc_says_whether_it_may_be_repeated(methods: Methods) -> None:
    """Retries and hedges go by the idempotency level, so none is left to its default."""
    silent = [name for name, options in methods if not options.HasField("idempotency_level")]

    assert not silent


def test_reasons_and_errors_match() -> None:
    """Each reason of the contract is some error's, and each error's reason is in the contract."""
    prefix = "ERROR_REASON_"
    declared = {
        name.removeprefix(prefix)
        for name, number in inference_service_pb2.ErrorReason.items()
        if number
    }
    raised = {kind.reason.removeprefix(prefix) for kind in raisable()} - {"UNSPECIFIED"}

    assert raised == declared


def raisable() -> list[type[ZetaError]]:
    """Every error that can leave by RPC."""
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, ZetaError)]
    return [kind for kind in kinds if kind is not errors.ConfigError]
