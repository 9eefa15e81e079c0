"""`zeta forget`: consent withdrawn."""

from typing import Annotated

import typer

from zeta_client.cli import shell


def forget(
    decision_id: Annotated[str, typer.Argument(metavar="ID", help="As `zeta ask` showed it")],
    *,
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Delete the prompt and answer that were kept with --consent-to-train."""
    forgotten = shell.run(_forget(shell.reach(config, target), decision_id))
    if as_json:
        shell.emit({"decision_id": decision_id, "forgotten": forgotten})
    else:
        shell.say("forgotten" if forgotten else "nothing was kept of this answer")


async def _forget(reach: shell.Reach, decision_id: str) -> bool:
    async with reach() as client:
        return await client.forget_texts(decision_id)
