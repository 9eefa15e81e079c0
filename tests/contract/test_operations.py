"""The operations manual tells all that an operator can set, type, or read in a log, and no more."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest
import typer

from services.kit import config
from zeta_client.cli.app import app

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "operations.md").read_text()
FLEETS = [f for f in sorted((ROOT / "config").glob("*.toml")) if "[fleet]" in f.read_text()]
CONFIGURATIONS = "\n".join(file.read_text() for file in FLEETS)
PACKAGES = ("services", "router_svc", "telemetry_svc", "zeta_client", "tools")
EVERYWHERE = {"--json", "--config", "--target", "--help"}
"""Options that the manual explains once for all commands."""
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def section(title: str) -> str:
    """Return the manual's text under *title*."""
    return MANUAL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def named(cell: str) -> set[str]:
    """Return what stands in backticks in a cell of a table."""
    return set(re.findall(r"`([^`]+)`", cell))


def rows(title: str) -> list[list[str]]:
    """Return the cells of every row of the tables under *title* that begins with a name."""
    lines = (line for line in section(title).splitlines() if line.startswith("| `"))
    return [line.strip("|").split(" | ") for line in lines]


def keys(kind: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of every key below a section, as the manual writes it, and its default."""
    for field in msgspec.structs.fields(kind):
        inner = next((s for s in structs_in(field.type)), None)
        if inner:
            yield from keys(inner, f"{path}{field.name}.")
        else:
            made = field.default_factory is not msgspec.NODEFAULT
            yield path + field.name, field.default_factory() if made else field.default


def structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the section that a key's type is, or holds."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for argument in get_args(kind):
        yield from structs_in(argument)


def written(default: Any) -> str:
    """Write *default* as the manual does: in TOML, or a dash where there is none."""
    if default is msgspec.NODEFAULT:
        return "\N{EN DASH}"
    return "`" + msgspec.json.encode(default).decode() + "`"


KEYS = dict(keys(config.FleetConfig))


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_explained(key: str) -> None:
    """A key that an operator can set is in the manual's tables, with its default."""
    (row,) = [r for r in rows("Configuration") if f"`{key}`" in r[0]]

    assert row[1].strip() in {written(KEYS[key]), written(KEYS[key]).replace(".0`", "`")}


def test_no_other_key_is_explained() -> None:
    """The tables name no key that was renamed or removed."""
    assert set().union(*(named(row[0]) for row in rows("Configuration"))) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_stands_in_a_configuration(key: str) -> None:
    """In use, or commented out: who looks for a key finds how it is written."""
    assert re.search(rf"\b{key.rpartition('.')[2]} = ", CONFIGURATIONS)


@pytest.mark.parametrize("file", FLEETS, ids=lambda f: f.stem)
def test_what_a_configuration_has_in_comments_is_right(file: Path, tmp_path: Path) -> None:
    """Every key that waits behind a # can be taken in as it stands."""
    whole = tmp_path / file.name
    whole.write_text(re.sub(r"^# (?=\[|\w+ = )", "", file.read_text(), flags=re.MULTILINE))

    config.load(whole)


def commands() -> Iterator[tuple[str, set[str]]]:
    """Yield every command of `zeta` with its options."""
    todo: list[tuple[str, Any]] = [("zeta", typer.main.get_command(app))]
    while todo:
        name, command = todo.pop()
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            todo += [(f"{name} {part}", inner) for part, inner in command.commands.items()]
        else:
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            yield name, {o for o in options if o.startswith("--")} - EVERYWHERE


def test_commands_and_their_options_are_those_of_the_manual() -> None:
    """Each command has its row, and in it exactly the options that it takes."""
    told = {r[0].strip().strip("`"): named(r[2]) for r in rows("Commands") if "`zeta" in r[0]}

    assert told == dict(commands())


def sources() -> Iterator[ast.AST]:
    """Yield everything in the code that runs."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield from ast.walk(ast.parse(file.read_text()))


def test_log_events_are_those_of_the_manual() -> None:
    """Every event has a name that does not change, and is explained; no other is."""
    calls = [n for n in sources() if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    logged = {
        ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "log"
        if call.func.attr in LEVELS
    }

    told = set().union(*(named(row[0]) for row in rows("Logs")))

    assert len(logged) > 50
    assert logged == told, "a new event needs a line in docs/operations.md, Logs"


def test_environment_variables_are_those_of_the_manual() -> None:
    """Whatever the code reads is in the table, and the table names nothing else of ours."""
    read = {
        match
        for node in sources()
        if isinstance(node, ast.Call | ast.Subscript)
        for match in re.findall(r"^os\.environ(?:\.\w+\(|\[)'(\w+)'", ast.unparse(node))
    }
    told = set().union(*(named(r[0]) for r in rows("Commands") if "`zeta" not in r[0]))

    assert {"ZETA_COMPILED", "ZETA_TRACEBACK"} <= read <= told
    assert {name for name in told if name.startswith("ZETA_")} <= read
