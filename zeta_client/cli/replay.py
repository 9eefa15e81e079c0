"""`zeta replay`: a journal's decisions made again, or judged by another policy."""

from collections.abc import Iterator
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from router_svc import recorded
from router_svc.core.offpolicy import Estimate, Evaluation, evaluate
from router_svc.policies import configured
from router_svc.recorded import Recorded, Target
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from zeta_client.cli import shell

_ALWAYS = "always:"
_SHOWN = 10


def replay(
    journal: Annotated[
        Path, typer.Argument(metavar="JOURNAL", help="router.sqlite3 in a state directory")
    ],
    *,
    policy: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="One of the configuration, or always:MODEL; default: its default"
        ),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Make every decision again and compare it, bit for bit")
    ] = False,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Estimate what another policy would have scored on the decisions of a journal."""
    settings = shell.load(config)
    try:
        if check:
            _check(journal, as_json=as_json)
        else:
            _estimate(journal, policy or settings.router.default_policy, settings, as_json=as_json)
    except ConfigError as error:
        shell.fail(str(error))


def _check(journal: Path, *, as_json: bool) -> None:
    """Count the decisions that come out the same; the exit code says whether all do."""
    count, differing = 0, dict[str, str]()
    for each in _read(journal):
        count += 1
        if what := recorded.difference(each):
            differing[each.id] = what
    if as_json:
        shell.emit({"decisions": count, "same": count - len(differing), "differing": differing})
    else:
        console = shell.out()
        for name, what in list(differing.items())[:_SHOWN]:
            console.print(f"{name}: {what}")
        console.print(f"{count - len(differing)} of {count} decisions came out the same")
    if differing:
        raise typer.Exit(1)


def _estimate(journal: Path, policy: str, settings: FleetConfig, *, as_json: bool) -> None:
    target = _target(policy, settings)
    try:
        found = evaluate(recorded.logged(_read(journal), target))
    except ValueError:
        shell.fail(
            f"{journal}: no decision can be judged: it needs feedback, and candidates of the "
            f"policy; `zeta replay {journal} --check` says whether decisions can be made again"
        )
    if as_json:
        shell.emit({"policy": policy, **_finite(asdict(found))})
    else:
        _report(policy, found)


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Leave out what JSON has no number for: the bounds of what nothing is known about."""
    return {
        name: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not isfinite(value)
        else value
        for name, value in figures.items()
    }


def _target(policy: str, settings: FleetConfig) -> Target:
    if policy.startswith(_ALWAYS):
        return recorded.always(policy.removeprefix(_ALWAYS))
    known = settings.router.policies
    if policy not in known:
        shell.fail(f"no policy {policy!r}; there are: {', '.join(sorted(known))}, always:MODEL")
    return recorded.under(configured(policy, known[policy]))


def _read(journal: Path) -> Iterator[Recorded]:
    """Read decision by decision, with a count on a terminal."""
    with shell.progress() as progress:
        bar = progress.add_task("decisions", total=None)
        for each in recorded.decisions(journal):
            yield each
            progress.advance(bar)


def _report(policy: str, found: Evaluation) -> None:
    table = Table(f"{found.decisions} decisions with feedback")
    for column in ("mean score", "95 % interval"):
        table.add_column(column, justify="right")
    rows: dict[str, Estimate] = {
        "as it was": found.logged,
        f"{policy}, inverse propensity (IPS)": found.ips,
        f"{policy}, self-normalised (SNIPS)": found.snips,
        f"{policy}, doubly robust (DR)": found.dr,
    }
    for name, each in rows.items():
        table.add_row(name, f"{each.value:.4f}", f"{each.low:.4f} to {each.high:.4f}")
    console = shell.out()
    console.print(table)
    console.print(
        f"worth {found.effective:.0f} decisions under the policy itself; largest weight "
        f"{found.largest_weight:.1f}; {found.support:.1%} of its choices could have been seen",
    )
    for warning in found.warnings:
        console.print(f"warning: {warning}")
