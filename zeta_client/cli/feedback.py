"""`zeta feedback`: how good an answer was, or which of two is better."""

from typing import Annotated

import typer

from zeta_client.cli import shell


def feedback(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="As `zeta ask` showed it")],
    *,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="S", help="0 bad, 1 good")
    ] = None,
    better_than: Annotated[
        str, typer.Option(metavar="ID", help="Instead of a score: the answer it is compared with")
    ] = "",
    preference: Annotated[
        float, typer.Option(min=0, max=1, metavar="P", help="1 better, 0.5 as good, 0 worse")
    ] = 1.0,
    source: Annotated[str, typer.Option(help="Who or what judges")] = "user",
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Tell the router how good an answer was, or which of two was better; it learns from it."""
    if (score is None) == (not better_than):
        shell.fail("give either --score S or --better-than ID")
    reach = shell.reach(config, target)
    counted = shell.run(
        _feedback(
            reach,
            decision_id,
            score,
            better_than=better_than,
            preference=preference,
            source=source,
        )
    )
    if as_json:
        said = {"score": score} if score is not None else {"better_than": better_than}
        shell.emit({"decision_id": decision_id, **said, "counted": counted})
    else:
        shell.say("counted" if counted else "not counted: this answer had been judged before")


async def _feedback(
    reach: shell.Reach,
    decision_id: str,
    score: float | None,
    *,
    better_than: str,
    preference: float,
    source: str,
) -> bool:
    async with reach() as client:
        return await client.feedback(
            decision_id, score, better_than=better_than, preference=preference, source=source
        )
