"""How the results of a demo look to a person."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeta_client.cli import tally
from zeta_client.cli.tally import Result
from zeta_client.tasks import Task


def line(console: Console, number: int, task: Task, result: Result) -> None:
    """Print one result on one line, cut where the terminal ends."""
    verdict = ("right", "green") if result.right else ("wrong", "red")
    text = Text.assemble(
        (f"{number + 1:4} ", "dim"),
        verdict,
        f"  {result.ttft_s * 1e3:4.0f} ms {result.tokens / result.total_s:5.0f}/s  "
        f"{task.kind:<9}  {result.model:<12}  {result.plan:<40}  ",
        (" ".join(task.prompt.split()), "dim"),
    )
    console.print(text, no_wrap=True, overflow="ellipsis")


def conclude(
    console: Console, routed: Sequence[Result], singles: Mapping[str, Sequence[Result]]
) -> None:
    """Print what the router did, the comparison with each model alone, and the verdict."""
    console.print(_plans(routed))
    console.print(_comparison(routed, singles))
    _verdict(console, "all prompts", tally.standing(routed, singles))
    last = {name: tally.last_third(results) for name, results in singles.items()}
    if tally.last_third(routed):
        _verdict(console, "last third", tally.standing(tally.last_third(routed), last))


def _plans(routed: Sequence[Result]) -> Table:
    table = Table("what the router did", title_justify="left")
    for title in ("prompts", "right", "first token p50", "p99", "tokens/s"):
        table.add_column(title, justify="right")
    for plan, found in tally.grouped(routed, lambda r: r.plan).items():
        table.add_row(plan, f"{found['answers']}", *_cells(found))
    return table


def _comparison(routed: Sequence[Result], singles: Mapping[str, Sequence[Result]]) -> Table:
    table = Table(f"{len(routed)} prompts")
    for title in ("right", "first token p50", "p99", "tokens/s"):
        table.add_column(title, justify="right")
    table.add_row("routed", *_cells(tally.figures(routed)), style="bold")
    for name, results in singles.items():
        table.add_row(f"{name} alone", *_cells(tally.figures(results)))
    table.add_row("oracle, any model right", f"{tally.oracle(singles):.1%}")
    return table


def _cells(found: Mapping[str, float]) -> Iterable[str]:
    return (
        f"{found['accuracy']:.1%}",
        f"{found['ttft_p50_s'] * 1e3:.0f} ms",
        f"{found['ttft_p99_s'] * 1e3:.0f} ms",
        f"{found['tokens_per_s']:.0f}",
    )


def _verdict(console: Console, title: str, standing: Mapping[str, float]) -> None:
    gain = (standing["routed"] - standing["best_single"]) * 100
    console.print(
        f"{title}: routed {standing['routed']:.1%}, best single model "
        f"{standing['best_single']:.1%} ({gain:+.1f} points), oracle {standing['oracle']:.1%}; "
        f"{standing['captured']:.0%} of the way"
    )
