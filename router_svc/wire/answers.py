"""The events of an answer that the router makes itself."""

from collections.abc import Sequence
from typing import Final

from zeta.inference.v1 import decision_pb2 as decision_pb
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.core import reward
from router_svc.core.reward import Step
from router_svc.wire.values import Event, duration

_PARTS: Final = {
    name.removeprefix("PLAN_PART_").lower(): value for name, value in inference_pb.PlanPart.items()
}


def started(decision_id: str, line: str, model: str, replica: str, prompt_tokens: int) -> Event:
    """Build the first event."""
    return inference_pb.GenerateResponse(
        started=inference_pb.Started(
            decision_id=decision_id,
            plan=line,
            model=model,
            replica=replica,
            prompt_tokens=prompt_tokens,
        )
    )


def finished(
    last: inference_pb.Finished,
    steps: Sequence[Step],
    *,
    queue_s: float,
    ttft_s: float,
    total_s: float,
    tokens_before: int,
    decision: decision_pb.Decision | None,
) -> Event:
    """Build the last event from the chosen model's own.

    `usage` is the chosen call's, with the *tokens_before* that others gave of the same answer;
    `cost_usd` and `steps` cover every call.
    """
    chosen = next(step for step in steps if step.chosen)
    event = inference_pb.GenerateResponse()
    done = event.finished
    done.CopyFrom(last)
    done.model = chosen.model
    done.usage.completion_tokens += tokens_before
    done.cost_usd = sum(step.cost_usd for step in steps)
    model_queue_s = last.timings.queue.ToNanoseconds() / 1e9
    done.timings.queue.CopyFrom(duration(queue_s + model_queue_s))
    done.timings.time_to_first_token.CopyFrom(duration(ttft_s))
    done.timings.total.CopyFrom(duration(total_s))
    del done.steps[:]
    done.steps.extend(_step_pb(step) for step in steps)
    if decision is not None:
        done.decision.CopyFrom(decision)
    return event


def _step_pb(step: Step) -> inference_pb.PlanStep:
    return inference_pb.PlanStep(
        model=step.model,
        replica=step.replica,
        usage=inference_pb.Usage(
            prompt_tokens=step.prompt_tokens, completion_tokens=step.completion_tokens
        ),
        cost_usd=step.cost_usd,
        total=duration(step.total_s),
        mean_logprob=step.mean_logprob,
        chosen=step.chosen,
        part=_PARTS[step.part],
        end=_end_of(step),
    )


def _end_of(step: Step) -> inference_pb.StepEnd.ValueType:
    match step.error:
        case "":
            return inference_pb.STEP_END_COMPLETE
        case reward.CANCELLED:
            return inference_pb.STEP_END_CANCELLED
        case _:
            return inference_pb.STEP_END_FAILED


def continuation(text: str, token_ids: Sequence[int]) -> inference_pb.Continuation:
    """Write down the beginning of an answer that was shown already."""
    return inference_pb.Continuation(text=text, token_ids=token_ids)


def handover(
    from_replica: str, to_replica: str, to_model: str, *, draining: bool, after_seq: int
) -> Event:
    """Build the event of an answer that goes on elsewhere."""
    reasons = inference_pb.HandoverReason
    return inference_pb.GenerateResponse(
        handover=inference_pb.Handover(
            from_replica=from_replica,
            to_replica=to_replica,
            to_model=to_model,
            reason=reasons.HANDOVER_REASON_DRAINING
            if draining
            else reasons.HANDOVER_REASON_REPLICA_LOST,
            after_seq=after_seq,
        )
    )
