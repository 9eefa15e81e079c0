"""`zeta feedback`: how good an answer was, which of two is better, or what a verifier says."""

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
    verifier: Annotated[
        str, typer.Option(metavar="NAME", help="Instead of a score: exact, numeric, json, python…")
    ] = "",
    answer: Annotated[
        str, typer.Option(metavar="TEXT", help="With --verifier: what it is to judge")
    ] = "",
    reference: Annotated[
        str, typer.Option(metavar="TEXT", help="With --verifier: what it is held against")
    ] = "",
    source: Annotated[str, typer.Option(help="Who or what judges")] = "user",
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Tell the router how good an answer was, or which of two was better; it learns from it."""
    if [score is not None, bool(better_than), bool(verifier)].count(True) != 1:
        shell.fail("give one of --score S, --better-than ID and --verifier NAME")
    reach = shell.reach(config, target)
    if verifier:
        found = shell.run(_verify(reach, decision_id, verifier, answer, reference))
        said: dict[str, object] = {"verifier": verifier, "score": found}
        heard = f"{verifier} says {found:g}"
    else:
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
        said = {"score": score} if score is not None else {"better_than": better_than}
        said["counted"] = counted
        heard = "counted" if counted else "not counted: this answer had been judged before"
    if as_json:
        shell.emit({"decision_id": decision_id, **said})
    else:
        shell.say(heard)


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


async def _verify(
    reach: shell.Reach, decision_id: str, verifier: str, answer: str, reference: str
) -> float:
    async with reach() as client:
        return await client.verify(decision_id, verifier, answer, reference)
