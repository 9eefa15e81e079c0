"""`zeta feedback`: how good an answer was."""

from typing import Annotated

import typer

from zeta_client.cli import shell


def feedback(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="As `zeta ask` showed it")],
    *,
    score: Annotated[float, typer.Option(min=0, max=1, metavar="S", help="0 bad, 1 good")],
    source: Annotated[str, typer.Option(help="Who or what judges")] = "user",
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Tell the router how good an answer was; it learns from it."""
    reach = shell.reach(config, target)
    counted = shell.run(_feedback(reach, decision_id, score, source))
    if as_json:
        shell.emit({"decision_id": decision_id, "score": score, "counted": counted})
    else:
        shell.say("counted" if counted else "not counted: this answer had been judged before")


async def _feedback(reach: shell.Reach, decision_id: str, score: float, source: str) -> bool:
    async with reach() as client:
        return await client.feedback(decision_id, score, source=source)
