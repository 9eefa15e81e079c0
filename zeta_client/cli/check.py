"""`zeta config check`: every mistake of a configuration in one go."""

from pathlib import Path
from typing import Annotated

import typer

from services.kit import config as kit_config
from services.kit.errors import ConfigError
from zeta_client.cli import shell


def check(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: pocket")] = None,
    *,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Check a configuration; each mistake is a line with its key's path."""
    path = file or config or shell.default_config()
    mistakes = _mistakes(path)
    if as_json:
        shell.emit({"file": str(path), "ok": not mistakes, "mistakes": mistakes})
    else:
        for line in mistakes or ["no mistake found"]:
            shell.say(f"{path}: {line}")
    if mistakes:
        count = f"{len(mistakes)} mistake" + "s" * (len(mistakes) > 1)
        shell.fail(f"{count} in {path}; docs/operations.md explains every key")
    for model in kit_config.load(path).models:
        if not Path(model.dir).is_dir():
            shell.notes().print(f"note: {model.name}: {model.dir} is not on this machine")


def _mistakes(path: Path) -> list[str]:
    """List what is wrong, without the file's name in front of each."""
    try:
        kit_config.load(path)
    except ConfigError as error:
        return [line.removeprefix(f"{path}: ") for line in str(error).splitlines()]
    return []
