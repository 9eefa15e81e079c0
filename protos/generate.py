"""Regenerate the Python stubs under protos/gen from the .proto files beside this script."""

import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent


def main(out: Path = ROOT / "gen") -> int:
    """Rebuild *out* from scratch, so that a deleted .proto leaves no stub behind."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    include = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("zeta/**/*.proto"))
    kinds = ("python", "mypy", "grpc_python", "mypy_grpc")
    outs = [f"--{kind}_out={out}" for kind in kinds]
    status = int(protoc.main(["protoc", f"-I{ROOT}", f"-I{include}", *outs, *sources]))
    for folder in (p for p in (out / "zeta").rglob("*") if p.is_dir()):
        (folder / "__init__.py").touch()
    (out / "zeta" / "__init__.py").touch()
    (out / "zeta" / "py.typed").touch()
    return status


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
