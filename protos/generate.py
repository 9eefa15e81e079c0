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
    # The plug-ins of this very environment, whatever the PATH says.
    plugins = [
        f"--plugin={name}={Path(sys.executable).parent / name}"
        for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    arguments = [f"-I{ROOT}", f"-I{include}", *plugins, *outs, *sources]
    status = int(protoc.main(["protoc", *arguments]))
    if status:
        return status
    for folder in (p for p in (out / "zeta").rglob("*") if p.is_dir()):
        (folder / "__init__.py").touch()
    (out / "zeta" / "__init__.py").touch()
    (out / "zeta" / "py.typed").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
