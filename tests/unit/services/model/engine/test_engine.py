"""The engine's invariants under random arrivals, on a backend that shows any slot mix-up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.model.backends.fake import FakeBackend
from services.model.engine.engine import Engine
from services.model.engine.types import (
    Embedded,
    Failed,
    FinishReason,
    Generated,
    Limits,
    Occupancy,
    Pool,
    Request,
    Sampling,
    Scored,
    StepResult,
)

SLOTS, CONTEXT, VOCABULARY = 4, 48, 31
SECOND_OF_SEED_1 = 4042681867674859579
STOP_IDS = frozenset({3})
LIMITS = Limits(max_running=SLOTS, kv_tokens=SLOTS * CONTEXT, chunk_tokens=8)


def engine(limits: Limits = LIMITS) -> Engine:
    """Return an engine with nothing to do."""
    backend = FakeBackend(slots=SLOTS, context_tokens=CONTEXT, vocabulary=VOCABULARY)
    return Engine(backend, limits)


def finish(running: Engine) -> list[StepResult]:
    """Step until nothing is left; every step must be worth it."""
    results = []
    while not running.idle:
        results.append(running.step())
        assert results[-1].prompt_tokens + results[-1].decoded_rows > 0, "a step that did nothing"
    return results


def tokens_of(results: Sequence[StepResult], request_id: int) -> list[int]:
    """Return the answer to one request."""
    outputs = [o for r in results for o in r.outputs if o.id == request_id]
    return [o.token for o in outputs if isinstance(o, Generated)]


def fed(results: Sequence[StepResult]) -> int:
    """Return how many prompt tokens were fed."""
    return sum(r.prompt_tokens for r in results)


def alone(request: Request) -> list[int]:
    """Return the answer that a request gets when nothing else runs, its prompt in one piece."""
    single = engine(replace(LIMITS, chunk_tokens=CONTEXT))
    single.add(request)
    return tokens_of(finish(single), request.id)


@dataclass(slots=True)
class EveryThird:
    """A matcher that allows a third of the tokens, another third after each; then the end."""

    left: int
    breaks: bool
    error: str = ""

    def allowed(self) -> NDArray[np.uint8]:
        """Every third token, but no stop id until the end."""
        self.error = "too hard" if self.breaks and self.left <= 1 else ""
        tokens = np.arange(VOCABULARY)
        allowed = (tokens % 3 == self.left % 3) & ~np.isin(tokens, list(STOP_IDS))
        return np.packbits(allowed & (not self.error), bitorder="little")

    def accept(self, token: int) -> bool:
        """Refuse what was not allowed."""
        assert token % 3 == self.left % 3 or self.error
        self.left -= 1
        return self.left == 0


@dataclass(frozen=True, slots=True)
class Thirds:
    """Answers of so many tokens, or that fail before their last."""

    length: int
    breaks: bool = False

    def matcher(self) -> EveryThird:
        """Return a matcher at the beginning."""
        return EveryThird(self.length, self.breaks)


pools: st.SearchStrategy[Pool | None] = st.sampled_from([None, None, None, "last", "mean", "first"])
grammars = st.one_of(st.none(), st.none(), st.builds(Thirds, st.integers(1, 9), st.booleans()))
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**64 - 1),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, how many steps to wait before it, and when it is cancelled, if it is."""

    request: Request
    after_steps: int
    cancel_after_steps: int | None


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    """Draw a few requests of all kinds, some of them with several samples."""
    out: list[Arrival] = []
    for _ in range(draw(st.integers(1, 9))):
        length = draw(st.integers(2, 30))
        scored = draw(st.sampled_from([0, 0, 0, 1, length - 1]))
        pool = None if scored else draw(pools)
        request = Request(
            id=len(out),
            tokens=np.random.default_rng(draw(st.integers(0, 4))).integers(0, VOCABULARY, length),
            max_tokens=0 if scored or pool else draw(st.integers(1, CONTEXT - length)),
            sampling=draw(samplings),
            stop_ids=STOP_IDS,
            grammar=draw(grammars),
            rank=draw(st.integers(0, 2)),
            scored_tokens=scored,
            pool=pool,
        )
        cancel = draw(st.one_of(st.none(), st.none(), st.integers(0, 12)))
        out.append(Arrival(request, draw(st.integers(0, 6)), cancel))
        for n in range(1, draw(st.sampled_from([1, 1, 2, 5]))):
            sampling = request.sampling.of_sample(n)
            sample = replace(request, id=len(out), sampling=sampling)
            out.append(Arrival(sample, 0, draw(st.one_of(st.none(), st.integers(0, 12)))))
    return out


def held_slots(running: Engine) -> list[int]:
    """Return the slots in use; looks inside, because nothing outside may depend on them."""
    return [s.slot for s in running._slots.held]


def check(running: Engine, result: StepResult) -> None:
    """Assert what holds after every step."""
    held = running._slots.held
    assert held_slots(running) == list(range(len(held))), "a slot is held twice, or there is a gap"
    assert len(held) <= running.limits.max_running
    assert sum(s.request.reserved_tokens for s in held) <= running.limits.kv_tokens
    assert result.prompt_tokens <= running.limits.chunk_tokens
    assert all(s.cached <= CONTEXT for s in held)
    check_contents(running)


def check_contents(running: Engine) -> None:
    """Assert that every slot holds the tokens that the engine believes it holds."""
    slots, cache = running._slots, running._backend._cache  # type: ignore[attr-defined]
    assert not set(slots.kept) & set(held_slots(running)), "a slot is both held and free"
    assert all(slot < SLOTS for slot in slots.kept)
    contents = [*slots.kept.items(), *((s.slot, s.held) for s in slots.held)]
    for slot, tokens in contents:
        assert cache[slot, : len(tokens)].tolist() == tokens.tolist()


class Run:
    """An engine that is given arrivals and checked after every step."""

    def __init__(self, limits: Limits) -> None:
        self.engine = engine(limits)
        self.results: list[StepResult] = []
        self.cancelled: set[int] = set()
        self._cancels: dict[int, list[int]] = {}

    def add(self, arrival: Arrival) -> None:
        """Wait as long as the arrival says, then add it, and plan its cancellation."""
        for _ in range(arrival.after_steps):
            self.step()
        self.engine.add(arrival.request)
        if arrival.cancel_after_steps is not None:
            at = len(self.results) + arrival.cancel_after_steps
            self._cancels.setdefault(at, []).append(arrival.request.id)

    def step(self) -> None:
        """Cancel what is due, and step."""
        for request_id in self._cancels.pop(len(self.results), []):
            if self.engine.cancel(request_id):
                self.cancelled.add(request_id)
                held = {s.request.id for s in self.engine._slots.held}
                assert request_id not in held, "a cancelled request keeps its slot"
                check_contents(self.engine)
        self.results.append(self.engine.step())
        check(self.engine, self.results[-1])


any_limits = st.builds(
    Limits,
    max_running=st.integers(1, SLOTS),
    kv_tokens=st.integers(CONTEXT, SLOTS * CONTEXT),
    chunk_tokens=st.integers(1, 20),
)


@settings(max_examples=200)
@given(arrivals(), st.lists(any_limits, min_size=1, max_size=4))
def test_random_arrivals_keep_every_invariant(coming: list[Arrival], limits: list[Limits]) -> None:
    """Slots and limits hold, every sequence finishes, and each says what it says alone."""
    run = Run(limits[0])
    for i, arrival in enumerate(coming):
        run.add(arrival)
        run.engine.limits = limits[i % len(limits)]
    while not run.engine.idle:
        run.step()

    ended = {o.id for r in run.results for o in r.outputs if o.ends}
    assert ended | run.cancelled == {a.request.id for a in coming}
    assert not ended & run.cancelled
    for request in (a.request for a in coming if a.request.generates):
        expected, got = alone(request), tokens_of(run.results, request.id)
        complete = request.id in ended
        assert got == (expected if complete else expected[: len(got)])


@settings(max_examples=40)
@given(arrivals(), st.integers(1, 20))
def test_scores_do_not_depend_on_company_or_chunks(coming: list[Arrival], chunk: int) -> None:
    """A score in a busy batch, in pieces, equals the score alone."""
    running = engine(replace(LIMITS, chunk_tokens=chunk))
    for arrival in coming:
        running.add(arrival.request)
    scores = {o.id: o.logprob for r in finish(running) for o in r.outputs if isinstance(o, Scored)}
    for request in (a.request for a in coming):
        if request.scored_tokens:
            single = engine()
            single.add(request)
            (only,) = [o for r in finish(single) for o in r.outputs]
            assert isinstance(only, Scored)
            assert abs(scores[request.id] - only.logprob) < 1e-4


@settings(max_examples=40)
@given(arrivals(), st.integers(1, 20))
def test_vectors_do_not_depend_on_company_or_chunks(coming: list[Arrival], chunk: int) -> None:
    """A vector in a busy batch, in pieces, after pre-emptions, is that of the text alone."""
    run = Run(replace(LIMITS, chunk_tokens=chunk))
    for i, arrival in enumerate(coming):
        run.add(replace(arrival, cancel_after_steps=None))
        run.engine.limits = replace(run.engine.limits, max_running=1 + i % SLOTS)
    while not run.engine.idle:
        run.step()
    vectors = {o.id: o.vector for r in run.results for o in r.outputs if isinstance(o, Embedded)}
    assert vectors.keys() == {a.request.id for a in coming if a.request.pool}
    for request in (a.request for a in coming if a.request.pool):
        count = len(request.tokens)
        rows = FakeBackend(slots=1, context_tokens=CONTEXT, vocabulary=VOCABULARY).hidden(
            0, 0, request.tokens, count
        )
        expected = {"last": rows[-1], "mean": rows.mean(axis=0), "first": rows[0]}
        np.testing.assert_allclose(vectors[request.id], expected[request.pool or ""], atol=1e-5)


def request(request_id: int, **changes: object) -> Request:
    """Return a small request."""
    small = Request(id=request_id, tokens=np.arange(1, 5), max_tokens=5)
    return replace(small, **changes)  # type: ignore[arg-type]


def test_a_score_is_the_sum_of_the_log_probabilities() -> None:
    """Scoring a greedy answer gives the log-probabilities that generating it gave."""
    running = engine()
    running.add(request(1))
    answer = [o for r in finish(running) for o in r.outputs if isinstance(o, Generated)]
    tokens = np.concatenate([np.arange(1, 5), [o.token for o in answer]])
    running.add(Request(id=2, tokens=tokens, scored_tokens=len(answer)))
    (score,) = [o for r in finish(running) for o in r.outputs]
    assert isinstance(score, Scored)
    assert abs(score.logprob - sum(o.logprob for o in answer)) < 1e-4


def test_a_higher_rank_starts_first_and_equals_keep_their_order() -> None:
    """Rank orders the queue, then arrival."""
    running = engine(replace(LIMITS, max_running=1))
    for request_id, rank in ((1, 1), (2, 2), (3, 0), (4, 1)):
        running.add(request(request_id, rank=rank))
    began = [i for r in finish(running) for i in r.began]
    assert began == [3, 1, 4, 2]


def test_a_long_prompt_does_not_stall_a_running_stream() -> None:
    """Every step decodes what runs, while a prompt is fed piece by piece."""
    running = engine()
    running.add(request(1, max_tokens=20))
    running.step()
    running.add(request(2, tokens=np.arange(30) % VOCABULARY))
    for _ in range(3):
        result = running.step()
        assert (result.prompt_tokens, result.decoded_rows) == (8, 1)


def test_cancelling_frees_the_slot_at_once() -> None:
    """The next step runs without a cancelled request, and its slot is free."""
    running = engine()
    running.add(request(1, max_tokens=40))
    running.add(request(2, max_tokens=40))
    running.step()
    assert running.cancel(1)
    assert running.occupancy().running == 1
    assert running.step().decoded_rows == 1
    assert not running.cancel(1)


def test_a_passed_deadline_ends_running_and_waiting_requests() -> None:
    """Deadlines are kept whatever the state of the request."""
    running = engine(replace(LIMITS, max_running=1))
    running.add(request(1, max_tokens=40, deadline_s=5.0))
    running.add(request(2, max_tokens=40, deadline_s=4.0))
    running.add(request(3, deadline_s=99.0))
    running.step()
    assert running.expire(3.9) == []
    assert running.expire(5.0) == [2, 1]
    finish(running)
    assert running.expire(1e9) == []


def test_deadlines_of_ended_requests_are_forgotten() -> None:
    """An hour of deadline is not an hour of memory."""
    running = engine()
    for request_id in range(500):
        running.add(request(request_id, max_tokens=1, deadline_s=3600.0))
        finish(running)
    running.add(request(999, max_tokens=40, deadline_s=4000.0))
    assert len(running._deadlines) < 100
    assert running.expire(4000.0) == [999]


def test_fewer_slots_drop_nobody() -> None:
    """Who is beyond the new limit, the newest first, waits and goes on without a gap."""
    running = engine()
    asked = [request(i, max_tokens=9, tokens=np.arange(i, i + 6)) for i in range(4)]
    for one in asked:
        running.add(one)
    results = [running.step() for _ in range(4)]
    assert running.occupancy().running == 4
    running.limits = replace(LIMITS, max_running=1)
    results.append(running.step())
    assert running.occupancy().running == 1
    assert running.occupancy().preempted == {1, 2, 3}
    results += finish(running)
    assert sum(len(r.began) for r in results) == 4
    for one in asked:
        assert tokens_of(results, one.id) == alone(one)


def test_fewer_cache_tokens_drop_nobody() -> None:
    """The cache's budget is kept from the next step on."""
    running = engine()
    asked = [request(i, tokens=np.arange(i, i + 10), max_tokens=10) for i in range(3)]
    for one in asked:
        running.add(one)
    results = [running.step() for _ in range(5)]
    running.limits = replace(LIMITS, kv_tokens=48)
    results.append(running.step())
    assert running.occupancy().preempted == {2}
    results += finish(running)
    for one in asked:
        assert tokens_of(results, one.id) == alone(one)


def test_an_urgent_request_takes_the_place_of_the_least_important() -> None:
    """Of the lowest class the newest; it goes on where it was, and says what it says alone."""
    running = engine(replace(LIMITS, max_running=3))
    asked = [request(i, rank=rank, max_tokens=9) for i, rank in ((1, 1), (2, 2), (3, 2))]
    for one in asked:
        running.add(one)
    results = [running.step() for _ in range(4)]
    running.add(request(4, rank=0))
    results.append(running.step())
    assert 4 in results[-1].began
    assert running.occupancy().preempted == {3}
    results += finish(running)
    assert [i for r in results for i in r.began] == [1, 2, 3, 4]
    for one in [*asked, request(4, rank=0)]:
        assert tokens_of(results, one.id) == alone(one)


def test_nobody_yields_where_it_would_not_help() -> None:
    """Urgent requests wait for one another, and nobody else takes a place."""
    running = engine(replace(LIMITS, max_running=1))
    running.add(request(1, rank=0, max_tokens=9))
    running.step()
    for request_id in (2, 3):
        running.add(request(request_id, rank=request_id - 2))
    running.step()
    assert running.occupancy().preempted == frozenset()
    began = [i for r in finish(running) for i in r.began]
    assert began == [2, 3]


def test_what_was_preempted_feeds_little_again() -> None:
    """Its slot keeps what it held as long as nobody needs the room."""
    running = engine(replace(LIMITS, max_running=1))
    running.add(request(1, tokens=np.arange(20), max_tokens=8))
    for _ in range(5):
        running.step()
    running.add(request(2, rank=0, max_tokens=1))
    results = finish(running)
    assert fed(results) == 4 + 1


def test_a_preempted_request_can_be_cancelled() -> None:
    """It waits like any other."""
    running = engine(replace(LIMITS, max_running=1))
    running.add(request(1, max_tokens=20))
    running.step()
    running.add(request(2, rank=0, max_tokens=9))
    running.step()
    assert running.occupancy().preempted == {1}
    assert running.cancel(1)
    assert {o.id for r in finish(running) for o in r.outputs} == {2}


def test_occupancy_adds_up() -> None:
    """What runs, and how much of it is fed."""
    running = engine(replace(LIMITS, max_running=1))
    running.add(request(1, tokens=np.arange(1, 13)))
    running.add(request(2))
    assert running.occupancy() == Occupancy()
    running.step()
    assert running.occupancy() == Occupancy(running=1, unfed_tokens=4, kv_used_tokens=8)
    running.step()
    assert running.occupancy() == Occupancy(running=1, unfed_tokens=0, kv_used_tokens=12)


def test_an_answer_ends_at_a_stop_id_or_at_its_length() -> None:
    """The reason says which; the stop token counts."""
    running = engine()
    running.add(request(1))
    free = tokens_of(finish(running), 1)
    running.add(request(2, stop_ids=frozenset({free[2]})))
    stopped = [o for r in finish(running) for o in r.outputs if isinstance(o, Generated)]
    at = free.index(free[2])
    assert [o.token for o in stopped] == free[: at + 1]
    assert stopped[-1].finish is FinishReason.STOP
    running.add(request(3, max_tokens=2))
    (*_, last) = [o for r in finish(running) for o in r.outputs if isinstance(o, Generated)]
    assert last.finish is FinishReason.LENGTH


def test_a_seed_decides_the_answer() -> None:
    """The same seed gives the same tokens, another seed others."""
    warm = Sampling(temperature=1.0, seed=1)
    first, again = (alone(request(1, sampling=warm, max_tokens=20)) for _ in range(2))
    other = alone(request(1, sampling=replace(warm, seed=2), max_tokens=20))
    assert first == again
    assert first != other


def samples(count: int, **changes: object) -> list[Request]:
    """Return the samples of one request, numbered from 0."""
    first = request(0, sampling=Sampling(temperature=1.5, seed=7), **changes)
    return [replace(first, id=i, sampling=first.sampling.of_sample(i)) for i in range(count)]


def test_samples_share_one_prompt_however_short() -> None:
    """It is fed once, all begin in the step that ends it, and each says what it says alone."""
    running, asked = engine(), samples(4, tokens=np.arange(1, 12), max_tokens=9)
    for one in asked:
        running.add(one)
    running.step()
    result = running.step()
    assert sorted(o.id for o in result.outputs) == [0, 1, 2, 3]
    assert (result.prompt_tokens, running.occupancy().running) == (3, 4)
    results = [result, *finish(running)]
    answers = [tokens_of(results, one.id) for one in asked]
    assert answers == [alone(one) for one in asked]
    assert len({tuple(a) for a in answers}) == 4
    assert fed(results) == 3


def test_samples_beyond_the_slots_wait_their_turn() -> None:
    """Two slots make five answers, each what it is alone."""
    running = engine(replace(LIMITS, max_running=2))
    asked = samples(5, tokens=np.arange(20), max_tokens=9)
    for one in asked:
        running.add(one)
    results = finish(running)
    assert [tokens_of(results, one.id) for one in asked] == [alone(one) for one in asked]
    # A prompt that is no longer at hand whole costs its last token.
    assert fed(results) <= 20 + 3


def test_a_sample_that_waits_behind_another_prompt_is_no_twin() -> None:
    """Only those next in line join: nobody is passed by."""
    running = engine(replace(LIMITS, max_running=2))
    first, second = samples(2, tokens=np.arange(20), max_tokens=9)
    for one in (first, request(5, tokens=np.arange(3, 9)), replace(second, id=6)):
        running.add(one)
    assert [i for r in finish(running) for i in r.began] == [0, 5, 6]


def test_scores_of_equal_prompts_are_each_computed() -> None:
    """A score wants more than one row of logits: it never borrows another's."""
    running = engine()
    for request_id in (1, 2):
        running.add(Request(id=request_id, tokens=np.arange(12), scored_tokens=4))
    scores = [o.logprob for r in finish(running) for o in r.outputs if isinstance(o, Scored)]
    assert len(scores) == 2
    assert abs(scores[0] - scores[1]) < 1e-6


def test_a_samples_seed_follows_from_seed_and_number_alone() -> None:
    """Number 0 keeps the seed; the others differ from it and from one another."""
    settings_ = Sampling(temperature=1.0, seed=2**64 - 1)
    seeds = [settings_.of_sample(i).seed for i in range(16)]
    assert seeds[0] == settings_.seed
    assert len(set(seeds)) == 16
    # Written down, since a caller may rely on it across versions.
    assert Sampling(seed=1).of_sample(1).seed == SECOND_OF_SEED_1


def test_a_vector_that_gave_up_its_slot_counts_nothing_twice() -> None:
    """What was added up before is dropped with the slot, and fed again."""
    running, tokens = engine(), np.arange(20) % VOCABULARY
    running.add(request(1, max_tokens=9))
    running.add(Request(id=2, tokens=tokens, pool="mean"))
    results = [running.step(), running.step()]
    assert running.occupancy().unfed_tokens > 0
    running.limits = replace(LIMITS, max_running=1)
    results.append(running.step())
    assert running.occupancy().preempted == {2}
    results += finish(running)
    (found,) = [o for r in results for o in r.outputs if isinstance(o, Embedded)]
    backend = FakeBackend(slots=1, context_tokens=CONTEXT, vocabulary=VOCABULARY)
    expected = backend.hidden(0, 0, tokens, len(tokens)).mean(axis=0)
    np.testing.assert_allclose(found.vector, expected, atol=1e-5)


def test_giving_up_a_slot_is_counted() -> None:
    """A step says how many requests had to wait again."""
    running = engine()
    for request_id in range(3):
        running.add(request(request_id, max_tokens=9))
    running.step()
    running.limits = replace(LIMITS, max_running=1)
    assert running.step().preempted == 2
    assert running.step().preempted == 0


@given(sampling=samplings, grammar=grammars, length=st.integers(1, 20), cut=st.integers(0, 19))
@settings(max_examples=60)
def test_an_answer_goes_on_elsewhere_as_it_would_have(
    sampling: Sampling, grammar: Thirds | None, length: int, cut: int
) -> None:
    """Whoever is given the beginning makes the same rest: numbers drawn, penalties and grammar."""
    wanted = request(1, sampling=sampling, grammar=grammar, max_tokens=length, stop_ids=STOP_IDS)
    whole = alone(wanted)
    cut = min(cut, len(whole) - 1)
    rest = alone(replace(wanted, answered=np.array(whole[:cut], np.int64)))
    assert rest == whole[cut:]


def reused(results: Sequence[StepResult]) -> dict[int, int]:
    """Return how many prompt tokens of each request were in the cache already."""
    return {i: tokens for r in results for i, tokens in r.began.items()}


def test_a_repeated_beginning_is_not_fed_again() -> None:
    """All that two prompts share is spared, and the answer is what it is without."""
    running, shared = engine(), np.arange(20) % VOCABULARY
    first, second = (request(i, tokens=np.append(shared, [i, i])) for i in (1, 2))
    running.add(first)
    assert reused(finish(running)) == {1: 0}
    running.add(second)
    results = finish(running)
    assert reused(results) == {2: 20}
    assert fed(results) == 2
    assert tokens_of(results, 2) == alone(second)


def test_the_last_token_of_a_prompt_is_always_fed() -> None:
    """The same prompt again needs one token fed, since its logits are wanted."""
    running = engine()
    running.add(request(1, tokens=np.arange(20), max_tokens=2))
    finish(running)
    running.add(request(2, tokens=np.arange(20), max_tokens=2))
    results = finish(running)
    assert reused(results) == {2: 19}
    assert fed(results) == 1


def test_a_short_beginning_is_fed_again() -> None:
    """Fifteen tokens are not worth a copy."""
    running = engine()
    for request_id in (1, 2):
        running.add(request(request_id, tokens=np.append(np.arange(15), [request_id] * 5)))
        assert reused(finish(running)) == {request_id: 0}


def test_a_conversation_goes_on_where_it_ended() -> None:
    """Prompt and answer of the last turn are the beginning of the next one's prompt."""
    running = engine()
    running.add(request(1, tokens=np.arange(20), max_tokens=6))
    answer = tokens_of(finish(running), 1)
    turn = request(2, tokens=np.concatenate([np.arange(20), answer, [1, 2, 3]]))
    running.add(turn)
    results = finish(running)
    # The last token of an answer is never fed.
    assert reused(results) == {2: 25}
    assert tokens_of(results, 2) == alone(turn)


def test_a_running_sequence_lends_its_beginning() -> None:
    """Requests that come together with one system prompt feed it once."""
    running, shared = engine(replace(LIMITS, chunk_tokens=64)), np.arange(24)
    for request_id in range(4):
        running.add(request(request_id, tokens=np.append(shared, [request_id] * 2)))
    results = finish(running)
    assert reused(results) == {0: 0, 1: 24, 2: 24, 3: 24}
    for request_id in range(4):
        asked = request(request_id, tokens=np.append(shared, [request_id] * 2))
        assert tokens_of(results, request_id) == alone(asked)


def test_the_least_recently_used_beginning_goes_first() -> None:
    """Four slots keep four beginnings; the one used longest ago makes room for the fifth."""
    running = engine()
    prompts = [np.random.default_rng(i).integers(0, VOCABULARY, 20) for i in range(5)]

    def spared(*asked: int) -> list[int]:
        out: list[int] = []
        for which in asked:
            running.add(request(0, tokens=prompts[which], max_tokens=1))
            out += reused(finish(running)).values()
        return out

    assert spared(0, 1, 2, 3) == [0, 0, 0, 0]
    assert spared(0) == [19]
    assert spared(4) == [0]
    assert spared(0, 2, 3, 4) == [19, 19, 19, 19]
    assert spared(1) == [0]


def test_scores_of_one_prompt_feed_it_once() -> None:
    """Continuations share all of the prompt but its last token, which predicts their first."""
    running, prompt = engine(replace(LIMITS, max_running=1)), np.arange(20)
    for i in range(3):
        running.add(Request(id=i, tokens=np.append(prompt, [i, 9]), scored_tokens=2))
    results = finish(running)
    assert reused(results) == {0: 0, 1: 19, 2: 19}


def test_what_is_kept_is_not_counted_as_used() -> None:
    """Nothing runs, nothing is used, whatever free slots still hold."""
    running = engine()
    running.add(request(1, tokens=np.arange(20)))
    finish(running)
    assert running._slots.kept
    assert running.occupancy() == Occupancy()


def test_a_grammar_rules_tokens_out_and_ends_the_answer() -> None:
    """Only what it allows is chosen; the answer ends where nothing may follow, without a token."""
    running = engine()
    running.add(request(1, grammar=Thirds(4), max_tokens=20, stop_ids=STOP_IDS))
    running.add(request(2))
    results = finish(running)
    assert [token % 3 for token in tokens_of(results, 1)] == [1, 0, 2, 1]
    (last,) = [o for r in results for o in r.outputs if o.id == 1 and o.ends]
    assert isinstance(last, Generated)
    assert last.finish is FinishReason.STOP
    assert tokens_of(results, 2) == alone(request(2))


def test_an_answer_that_its_grammar_gives_up_fails_alone() -> None:
    """The request ends with the reason, its slot is free, and its neighbour goes on."""
    for sampling in (Sampling(), Sampling(temperature=1.0, seed=4)):
        running = engine()
        running.add(request(1, grammar=Thirds(3, breaks=True), sampling=sampling))
        running.add(request(2))
        results = finish(running)
        assert [o for r in results for o in r.outputs if o.id == 1][-1] == Failed(1, "too hard")
        assert len(tokens_of(results, 1)) == 2
        assert tokens_of(results, 2) == alone(request(2))
        assert sum(r.generated for r in results) == 7
