"""An answer that goes on elsewhere: what was shown stays, and nothing is shown twice."""

from router_svc import wire
from router_svc.core.reward import Step
from router_svc.run import Call, Run
from router_svc.wire import Event
from services.kit.errors import DrainingError, ZetaError


def continuation(run: Run, call: Call) -> wire.Continuation | None:
    """Return what *call* is to go on behind, None where nothing was shown yet."""
    if not run.shown:
        return None
    text = "".join(event.delta.text for event in run.shown)
    # Tokens, the held back ones included, mean something to the model that made all of them.
    same = run.shown_by == {call.model}
    ids = [i for event in run.shown for i in event.delta.token_ids] if same else []
    return wire.continuation(text, ids)


def shown_tokens(run: Run, since: int = 0, until: int | None = None) -> int:
    """Count the tokens behind what was shown, from one event to another."""
    return sum(len(event.delta.token_ids) for event in run.shown[since:until])


def broken_off(call: Call, error: ZetaError, *, tokens: int, cost_usd: float) -> Step:
    """Describe what *call* gave of the answer, so many *tokens*, before it broke off."""
    return Step(
        model=call.model,
        replica=call.replica,
        part=call.part,
        prompt_tokens=call.prompt_tokens,
        completion_tokens=tokens,
        cost_usd=cost_usd,
        ttft_s=call.ttft_s,
        total_s=call.total_s,
        error=str(error),
    )


def event(run: Run, lost: str, call: Call, error: ZetaError) -> Event:
    """Build the event that tells the caller where the answer goes on."""
    return wire.handover(
        lost,
        call.replica,
        call.model,
        draining=isinstance(error, DrainingError),
        after_seq=run.last_seq,
    )
