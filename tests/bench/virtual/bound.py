"""How much of a load can be in time where every arrival and every length is known beforehand.

Each kind of task goes to the model that fixed routing names, one model after the other:

* *found*: a schedule that was found, so that at least so many can be. In order of arrival on the
  simulated replicas; whenever one would be late, the longest of those that came in the seconds
  before it is left out, and at last whoever fits again is taken back, the shortest first.
* *most*: a bound. All slots of a model as one machine that shares its time as it likes, always in
  full batches; deadlines come in the order of arrivals, and for those dropping, whenever one would
  be late, the one that frees most time is best (Kise, Ibaraki and Mine, Operations Research, 1978).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from services.kit.config import FleetConfig, Model
from tests.bench.virtual.recorded import Row
from tests.bench.virtual.replica import OVERHEAD_S, costs_of
from zeta_client.load.arrivals import Arrival
from zeta_client.load.ways import static
from zeta_client.sim.server import Job, Server

_BEFORE_S: Final = 3.0
"""Who came so long before one that is late may stand in its way."""
_NEARLY_S: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Requests that can be in time."""

    found: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request on the model of its kind; arrivals ascend."""

    at_s: float
    due_s: float
    prompt_tokens: int
    output_tokens: int


def known(
    config: FleetConfig,
    arrivals: Sequence[Arrival],
    rows: Sequence[Row],
    deadline_s: float | None,
) -> Known:
    """Return how many of *rows*, one of each arrival, can be answered within *deadline_s*."""
    if deadline_s is None:
        return Known(found=len(rows), most=len(rows))
    found = most = 0
    model_of = static(config)
    for model in config.models:
        calls = [
            Call(
                at_s=arrival.at_s + OVERHEAD_S / 2,
                due_s=arrival.at_s + deadline_s - OVERHEAD_S / 2,
                prompt_tokens=max(row.answers[model.name].prompt_tokens, 1),
                output_tokens=max(row.answers[model.name].tokens, 1),
            )
            for arrival, row in zip(arrivals, rows, strict=True)
            if model_of[row.kind] == model.name
        ]
        found += len(scheduled(model, calls))
        most += relaxed(model, calls)
    return Known(found=found, most=most)


def scheduled(model: Model, calls: Sequence[Call]) -> list[Call]:
    """Return those of *calls* for which a schedule was found."""
    kept, dropped = [*calls], list[Call]()
    while (late := _first_late(model, kept)) is not None:
        since_s = kept[late].at_s - _BEFORE_S
        near = [i for i in range(late + 1) if kept[i].at_s >= since_s]
        dropped.append(kept.pop(max(near, key=lambda i: kept[i].output_tokens)))
    for call in sorted(dropped, key=lambda c: c.output_tokens):
        more = sorted([*kept, call], key=lambda c: c.at_s)
        if _first_late(model, more) is None:
            kept = more
    return kept


def relaxed(model: Model, calls: Sequence[Call]) -> int:
    """Return how many of *calls* can be in time at most."""
    kept, ends_s = list[tuple[float, float]](), -inf
    for call in calls:
        work_s = _work_s(model, call) / len(model.replicas)
        kept.append((call.at_s, work_s))
        ends_s = max(ends_s, call.at_s) + work_s
        if ends_s > call.due_s + _NEARLY_S:
            kept.pop(_most_in_the_way(kept))
            ends_s = _end_s(kept)
    return len(kept)


def _first_late(model: Model, calls: Sequence[Call]) -> int | None:
    """Return the first of *calls* that is late in order of arrival, None where nobody is."""
    servers = [Server(costs_of(model), model.max_running) for _ in model.replicas]
    coming, waiting, first = deque(enumerate(calls)), deque[tuple[int, Call]](), len(calls)
    while coming or waiting or any(server.requests for server in servers):
        soonest = min(servers, key=_next_s)
        come_s = coming[0][1].at_s if coming else inf
        now_s = min(come_s, _next_s(soonest))
        if come_s <= _next_s(soonest):
            waiting.append(coming.popleft())
        else:
            for job in soonest.fire(now_s)[1]:
                if now_s > calls[job.number].due_s + _NEARLY_S:
                    first = min(first, job.number)
        while waiting:
            server = min(servers, key=lambda s: s.requests)
            if server.requests >= model.max_running:
                break
            number, call = waiting.popleft()
            job = Job(number, call.prompt_tokens, call.output_tokens, now_s)
            server.add(job, now_s)
    return first if first < len(calls) else None


def _next_s(server: Server) -> float:
    return server.next_s() if server.requests else inf


def _most_in_the_way(kept: Sequence[tuple[float, float]]) -> int:
    """Return without whom of *kept*, (from when, work), all would be done soonest."""
    begins_s, now_s = list[float](), -inf
    for at_s, work_s in kept:
        begins_s.append(max(now_s, at_s))
        now_s = begins_s[-1] + work_s
    best, most_s, sooner_s = len(kept) - 1, -1.0, inf
    # Whoever leaves lets all after it begin sooner, as far as they have come by then.
    for i in range(len(kept) - 1, -1, -1):
        at_s, work_s = kept[i]
        if min(work_s, sooner_s) > most_s:
            best, most_s = i, min(work_s, sooner_s)
        sooner_s = min(sooner_s, begins_s[i] - at_s)
        if sooner_s <= most_s:
            break
    return best


def _end_s(kept: Sequence[tuple[float, float]]) -> float:
    now_s = -inf
    for at_s, work_s in kept:
        now_s = max(now_s, at_s) + work_s
    return now_s


def _work_s(model: Model, call: Call) -> float:
    """Return what of a replica's time *call* takes in full batches, at least."""
    costs = costs_of(model)
    decoded_s = costs.step_s / model.max_running * (call.output_tokens - 1)
    return costs.prefill_s_per_token * call.prompt_tokens + decoded_s
