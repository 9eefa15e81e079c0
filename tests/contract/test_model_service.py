"""A model server in this process, and its stubs: what the contract promises of a model."""

import asyncio
import math
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1 import inference_service_pb2_grpc
from zeta.model.v1 import model_control_service_pb2 as control
from zeta.model.v1 import model_control_service_pb2_grpc

from services.kit import rpc
from services.kit.channel import open_channel
from services.kit.config import Fleet, FleetConfig, Replica, Router, Server, dump
from services.kit.config import Model as ModelConfig
from services.kit.errors import (
    ContextTooLongError,
    DrainingError,
    InvalidRequestError,
    NotBuiltError,
    OverloadedError,
    StreamBrokenError,
    UnknownModelError,
    ZetaError,
)
from services.kit.mux.client import Line
from services.model import process
from services.model.backends.base import Backend, Decoded, Ids
from services.model.process import INFERENCE, Running
from services.model.servicer import Model
from tests.unit.services.model import tiny

Event = inference.GenerateResponse
Shape = inference.OutputConstraint
MAX_RUNNING, MAX_WAITING = 2, 3


class GatedBackend:
    """A backend that decodes one step per permit while it is closed, and breaks when told to."""

    def __init__(self, inner: Backend) -> None:
        self.slots, self.context_tokens = inner.slots, inner.context_tokens
        self.prefill, self._decode = inner.prefill, inner.decode
        self.copy, self.swap = inner.copy, inner.swap
        self.closed = False
        self.broken = False
        self.permits = threading.Semaphore(0)

    def decode(self, tokens: Ids, lengths: Ids) -> Decoded:
        """As `Backend.decode`, when permitted."""
        if self.closed:
            self.permits.acquire()
        if self.broken:
            raise MemoryError("the device is gone")
        return self._decode(tokens, lengths)

    def open(self) -> None:
        """Let everything go on."""
        self.closed = False
        self.permits.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server, its insides and its stubs."""

    config: FleetConfig
    settings: ModelConfig
    model: Model
    backend: GatedBackend
    running: Running
    channel: grpc.aio.Channel
    answers: "inference_service_pb2_grpc.InferenceServiceAsyncStub"
    controls: "model_control_service_pb2_grpc.ModelControlServiceAsyncStub"
    health: Any

    async def state(self) -> control.ModelState:
        """Ask for the state."""
        return (await self.controls.GetState(control.GetStateRequest())).state

    async def until(self, holds: Callable[[control.ModelState], bool]) -> control.ModelState:
        """Ask for the state until *holds*, for ten seconds at most."""
        async with asyncio.timeout(10):
            while not holds(state := await self.state()):
                pass
        return state

    async def step_until(self, holds: Callable[[control.ModelState], bool]) -> control.ModelState:
        """Permit one step after another until *holds*, which a few of them must reach."""
        while not holds(state := await self.state()):
            self.backend.permits.release()
            steps = state.steps_total
            await self.until(lambda s, steps=steps: s.steps_total > steps)  # type: ignore[misc]
        return state


def configuration(folder: Path) -> FleetConfig:
    """Describe a fleet of one small model."""
    model = ModelConfig(
        name="tiny",
        dir=str(folder),
        max_running=MAX_RUNNING,
        max_waiting=MAX_WAITING,
        prefill_chunk_tokens=16,
        default_max_tokens=12,
        replicas=(Replica(listen="127.0.0.1:0"),),
    )
    return FleetConfig(models=(model,), server=Server(drain_grace_s=1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint."""
    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    """A model server of its own for each test."""
    config = configuration(folder)
    settings = config.models[0]
    model, inner = process.load(settings, "tiny-0")
    backend = GatedBackend(inner)
    async with AsyncExitStack() as stack:
        started = process.running(config, settings, model, backend, "127.0.0.1:0")
        running = await stack.enter_async_context(started)
        stack.callback(backend.open)
        channel = open_channel(running.server.address, config.server)
        await stack.enter_async_context(channel)
        await channel.channel_ready()
        yield Served(
            config=config,
            settings=settings,
            model=model,
            backend=backend,
            running=running,
            channel=channel,
            answers=inference_service_pb2_grpc.InferenceServiceStub(channel),
            controls=model_control_service_pb2_grpc.ModelControlServiceStub(channel),
            health=health_pb2_grpc.HealthStub(channel),
        )


def ask(content: str = "Hi", **fields: object) -> inference.GenerateRequest:
    """Ask one question."""
    message = inference.Message(role=inference.ROLE_USER, content=content)
    return inference.GenerateRequest(
        messages=inference.Conversation(messages=[message]),
        **fields,  # type: ignore[arg-type]
    )


async def answer(served: Served, request: inference.GenerateRequest) -> list[Event]:
    """Read a whole stream. Raises the error that the server raised."""
    try:
        return [event async for event in served.answers.Generate(request, timeout=20)]
    except grpc.aio.AioRpcError as failed:
        raise rpc.zeta_error(failed) from failed


async def rest(call: Any) -> list[Event]:
    """Read what is left of a stream. Raises the error that the server raised."""
    events = []
    try:
        while (event := await call.read()) is not grpc.aio.EOF:
            events.append(event)
    except grpc.aio.AioRpcError as failed:
        raise rpc.zeta_error(failed) from failed
    return events


def ids(events: list[Event]) -> list[int]:
    """Return the tokens of a stream."""
    return [i for event in events for i in event.delta.token_ids]


def text(events: list[Event]) -> str:
    """Return the text of a stream."""
    return "".join(event.delta.text for event in events)


def greedy(served: Served, prompt: Ids, count: int) -> tuple[list[int], list[float]]:
    """Compute the likeliest continuation, and its log-probabilities, one full pass per token."""
    tokens, logprobs = prompt.tolist(), []
    for _ in range(count):
        logits = served.backend.prefill(MAX_RUNNING - 1, 0, np.array(tokens), 1)[0]
        tokens.append(int(logits.argmax()))
        logprobs.append(float(logits.max() - np.log(np.exp(logits.astype(float)).sum())))
        if tokens[-1] in served.model.stop_ids:
            break
    return tokens[len(prompt) :], logprobs


def prompt_of(served: Served, content: str = "Hi") -> Ids:
    """Return the prompt's tokens as the chat template makes them."""
    return served.model.text.encode(templated(content), special=False)


def templated(content: str) -> str:
    """Return what the chat template makes of one question."""
    return f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


async def test_a_stream_is_started_deltas_finished(served: Served) -> None:
    """In this order, deltas counted without a gap, every figure in place."""
    started, *deltas, last = await answer(served, ask())
    assert started.started.plan == "single(tiny)"
    assert started.started.model == "tiny"
    assert started.started.replica == "tiny-0"
    assert started.started.decision_id
    assert started.started.prompt_tokens == len(prompt_of(served))
    assert [d.delta.seq for d in deltas] == list(range(1, len(deltas) + 1))
    finished = last.finished
    assert finished.reason in {inference.FINISH_REASON_LENGTH, inference.FINISH_REASON_STOP}
    assert finished.usage.prompt_tokens == started.started.prompt_tokens
    assert finished.usage.completion_tokens == len(ids(deltas))
    queue, first, total = (
        getattr(finished.timings, name).ToNanoseconds()
        for name in ("queue", "time_to_first_token", "total")
    )
    assert 0 < queue < first <= total
    assert finished.model == "tiny"
    assert finished.cost_usd == 0


async def test_the_default_is_the_likeliest_answer(served: Served) -> None:
    """Tokens, log-probabilities and their mean are those of a plain computation."""
    expected, logprobs = greedy(served, prompt_of(served), served.settings.default_max_tokens)
    events = await answer(served, ask(logprobs=inference.LogprobParams(top=3)))
    got = [entry for event in events for entry in event.delta.logprobs]
    assert ids(events) == expected
    assert [entry.logprob for entry in got] == pytest.approx(logprobs, abs=1e-4)
    assert all(entry.top[0].token_id == entry.token_id for entry in got)
    assert all(len(entry.top) == 3 for entry in got)
    assert events[-1].finished.mean_logprob == pytest.approx(np.mean(logprobs), abs=1e-4)
    assert text(events) == served.model.text.decode(expected)


async def test_a_prompt_and_its_tokens_get_the_same_answer(served: Served) -> None:
    """The three inputs differ in who applies the template and the tokenizer."""
    tokens = prompt_of(served)
    raw = inference.GenerateRequest(prompt=templated("Hi"))
    tokenised = inference.GenerateRequest(token_ids=inference.TokenIds(ids=tokens.tolist()))
    answers = [ids(await answer(served, r)) for r in (ask(), raw, tokenised)]
    assert answers[0] == answers[1] == answers[2]


async def test_a_seed_gives_the_same_answer_in_any_company(served: Served) -> None:
    """Alone, and in a batch with others."""
    seeded = ask(sampling=inference.SamplingParams(temperature=1.5, seed=5))
    other, another = (
        ask(f"Other {i}", sampling=inference.SamplingParams(temperature=1.5)) for i in range(2)
    )
    alone = ids(await answer(served, seeded))
    company = [answer(served, r) for r in (other, seeded, another)]
    assert ids((await asyncio.gather(*company))[1]) == alone
    unseeded = {tuple(ids(await answer(served, other))) for _ in range(3)}
    assert len(unseeded) > 1


WARM = inference.SamplingParams(temperature=1.5, seed=5)


def of(events: list[Event], sample: int) -> list[Event]:
    """Return the deltas of one answer."""
    deltas = [e for e in events if e.HasField("delta")]
    return [e for e in deltas if e.delta.sample == sample]


async def test_samples_share_one_stream(served: Served) -> None:
    """Deltas name their answer and count over all; the end tells how each ended."""
    events = await answer(served, ask(sampling=WARM, samples=3, max_tokens=9))
    deltas, last = events[1:-1], events[-1].finished
    assert [d.delta.seq for d in deltas] == list(range(1, len(deltas) + 1))
    assert {d.delta.sample for d in deltas} == {0, 1, 2}
    assert [end.completion_tokens for end in last.samples] == [
        len(ids(of(events, i))) for i in range(3)
    ]
    assert last.usage.completion_tokens == len(ids(deltas))
    assert last.usage.prompt_tokens == len(prompt_of(served))
    assert last.reason == last.samples[0].reason
    assert last.mean_logprob == last.samples[0].mean_logprob
    state = await served.state()
    assert state.requests_total == 1


async def test_a_sample_depends_on_its_number_and_the_seed_alone(served: Served) -> None:
    """The first is the answer without samples; each is the same among few and among many."""
    single = await answer(served, ask(sampling=WARM))
    few, many = [await answer(served, ask(sampling=WARM, samples=n)) for n in (2, 5)]
    assert ids(of(few, 0)) == ids(of(many, 0)) == ids(single)
    assert ids(of(few, 1)) == ids(of(many, 1))
    assert len({tuple(ids(of(many, i))) for i in range(5)}) == 5


async def test_one_sample_is_a_plain_stream(served: Served) -> None:
    """On the wire nothing tells it from a request that says nothing of samples."""
    plain, one = [await answer(served, r) for r in (ask(), ask(samples=1))]
    assert text(plain) == text(one)
    assert not any(event.delta.sample for event in one)
    assert not one[-1].finished.samples


async def test_every_sample_keeps_stops_constraints_and_logprobs(served: Served) -> None:
    """What holds for an answer holds for each of several."""
    constraint = Shape(regex="[a-f]{3,9}x")
    events = await answer(
        served,
        ask(
            sampling=WARM, samples=3, constraint=constraint, stop=["x"],
            logprobs=inference.LogprobParams(top=2),
        ),
    )  # fmt: skip
    for i in range(3):
        mine = of(events, i)
        assert set(text(mine)) <= set("abcdef")
        entries = [entry for event in mine for entry in event.delta.logprobs]
        assert [entry.token_id for entry in entries] == ids(mine)
        assert all(len(entry.top) == 2 for entry in entries)


async def test_a_caller_who_leaves_frees_every_sample(served: Served) -> None:
    """Neither what runs nor what waits is left behind."""
    served.backend.closed = True
    call = served.answers.Generate(ask(sampling=WARM, samples=4), timeout=20)
    await call.read()
    await call.read()
    before = await served.until(lambda s: s.running == 2 and s.waiting == 2)
    call.cancel()
    await served.until(lambda s: s.cancelled_total == 1)
    served.backend.permits.release()
    state = await served.until(lambda s: s.running == s.waiting == 0)
    assert state.steps_total <= before.steps_total + 1


async def test_samples_count_one_by_one_for_admission(served: Served) -> None:
    """Five places take five samples, not six."""
    with pytest.raises(OverloadedError, match="6 more do not fit"):
        await answer(served, ask(samples=6))
    assert len((await answer(served, ask(samples=5)))[-1].finished.samples) == 5


async def test_an_answer_ends_before_its_stop_string(served: Served) -> None:
    """The text ends there, and the reason is a stop."""
    whole = text(await answer(served, ask()))
    stop = next(c for c in whole[2:] if c.isprintable() and c != "\ufffd")
    events = await answer(served, ask(stop=[stop]))
    assert text(events) == whole[: whole.index(stop)]
    assert events[-1].finished.reason == inference.FINISH_REASON_STOP


def shown(events: list[Event]) -> inference.Continuation:
    """Return what a caller of these events has seen."""
    return inference.Continuation(text=text(events), token_ids=ids(events))


async def test_an_answer_goes_on_wherever_it_broke_off(served: Served) -> None:
    """After every delta, by tokens or by text: the same rest, and only the rest is counted."""
    warm = inference.SamplingParams(temperature=0.8, seed=3, frequency_penalty=0.5)
    events = await answer(served, ask(sampling=warm))
    whole, deltas = text(events), events[1:-1]
    for cut in range(1, len(deltas)):
        seen = deltas[:cut]
        rest = await answer(served, ask(sampling=warm, continuation=shown(seen)))
        assert text(seen) + text(rest) == whole
        assert ids(seen) + ids(rest) == ids(events)
        assert rest[0].started.prompt_tokens == events[0].started.prompt_tokens
        assert rest[1].delta.seq == 1
        assert rest[-1].finished.usage.completion_tokens == len(ids(rest))
        assert rest[-1].finished.reason == events[-1].finished.reason


async def test_an_answer_that_was_whole_already_just_ends(served: Served) -> None:
    """Its maker was lost between the last delta and the end."""
    events = await answer(served, ask())
    started, delta, last = await answer(served, ask(continuation=shown(events[1:-1])))
    assert started.started.prompt_tokens == events[0].started.prompt_tokens
    assert not delta.delta.text
    assert last.finished.reason == events[-1].finished.reason
    assert last.finished.usage.completion_tokens == 0


async def test_text_alone_goes_on(served: Served) -> None:
    """Another model has other tokens: the text is tokenised, and the rest follows it."""
    words = inference.Continuation(text="The answer")
    prompt = np.concatenate(
        [prompt_of(served), served.model.text.encode("The answer", special=False)]
    )
    expected, _ = greedy(served, prompt, 4)
    events = await answer(served, ask(continuation=words, max_tokens=16))
    assert ids(events)[:4] == expected[:4]


async def test_the_context_window_ends_an_answer(served: Served) -> None:
    """An upper bound that does not fit is no mistake; the window is the bound then."""
    events = await answer(served, ask("x" * 40, max_tokens=1000))
    usage = events[-1].finished.usage
    if events[-1].finished.reason == inference.FINISH_REASON_LENGTH:
        assert usage.prompt_tokens + usage.completion_tokens == tiny.CONTEXT_TOKENS
    assert usage.prompt_tokens + usage.completion_tokens <= tiny.CONTEXT_TOKENS


SAMPLING = [
    ("temperature", 2.5),
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("top_k", 0),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", 2.1),
    ("presence_penalty", 3.0),
    ("frequency_penalty", -2.5),
    ("frequency_penalty", math.inf),
]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        *((ask(sampling=inference.SamplingParams(**{k: v})), f"sampling.{k}") for k, v in SAMPLING),  # type: ignore[arg-type]
        (inference.GenerateRequest(), "input"),
        (inference.GenerateRequest(prompt=""), "prompt"),
        (inference.GenerateRequest(messages=inference.Conversation()), "messages.messages"),
        (ask(""), "messages.messages[0].content"),
        (
            inference.GenerateRequest(
                messages=inference.Conversation(messages=[inference.Message(content="Hi")])
            ),
            "messages.messages[0].role",
        ),
        (inference.GenerateRequest(token_ids=inference.TokenIds()), "token_ids.ids"),
        (
            inference.GenerateRequest(token_ids=inference.TokenIds(ids=[1, 2**32 - 1])),
            "token_ids.ids[1]",
        ),
        (ask(max_tokens=0), "max_tokens"),
        (ask(samples=0), "samples"),
        (ask(samples=17), "samples"),
        (ask(stop=["x"] * 17), "stop"),
        (ask(stop=["x", ""]), "stop[1]"),
        (ask(logprobs=inference.LogprobParams(top=21)), "logprobs.top"),
        (ask(priority=9), "priority"),
        (ask(task_kind=77), "task_kind"),
        (ask(continuation=inference.Continuation()), "continuation"),
        (
            ask(continuation=inference.Continuation(token_ids=[1, 2**32 - 1])),
            "continuation.token_ids[1]",
        ),
        (ask(constraint=Shape()), "constraint"),
        (ask(constraint=Shape(choice=inference.Choice())), "constraint.choice.options"),
        (ask(constraint=Shape(regex="x" * 70_000)), "constraint"),
        (ask(constraint=Shape(regex="(a")), "constraint.regex"),
        (ask(constraint=Shape(json_schema='{"type": "text"}')), "constraint.json_schema"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(
    served: Served, request_: inference.GenerateRequest, field: str
) -> None:
    """INVALID_ARGUMENT with the field's path; the server goes on."""
    with pytest.raises(InvalidRequestError) as refused:
        await answer(served, request_)
    assert [v.field for v in refused.value.violations] == [field]
    assert (await served.state()).running == 0


async def test_every_wrong_field_is_named_at_once(served: Served) -> None:
    """One round is enough to learn all of them."""
    wrong = ask(max_tokens=0, stop=[""], sampling=inference.SamplingParams(top_p=2, top_k=0))
    with pytest.raises(InvalidRequestError) as refused:
        await answer(served, wrong)
    fields = {v.field for v in refused.value.violations}
    assert fields == {"max_tokens", "stop[0]", "sampling.top_p", "sampling.top_k"}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ask(model="gpt-99"), UnknownModelError),
        (ask("x" * 200), ContextTooLongError),
        (ask("x" * 5_000_000), ContextTooLongError),
        (ask(resume=inference.Resume(decision_id="d", after_seq=3)), NotBuiltError),
    ],
)
async def test_what_cannot_be_served_says_why(
    served: Served, request_: inference.GenerateRequest, error: type[ZetaError]
) -> None:
    """Each refusal has the status and reason of the contract."""
    with pytest.raises(error) as refused:
        await answer(served, request_)
    assert type(refused.value) is error


async def test_the_models_own_name_is_accepted(served: Served) -> None:
    """A router sends it along."""
    assert (await answer(served, ask(model="tiny")))[-1].HasField("finished")


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        (Shape(choice=inference.Choice(options=["yes", "no", "not at all"])), "yes|no|not at all"),
        (Shape(regex="[0-9]{3}-[a-f]{2}"), "[0-9]{3}-[a-f]{2}"),
        (
            Shape(json_schema='{"enum": [{"a": 1}, [true]]}'),
            r'\{\s*"a"\s*:\s*1\s*\}|\[\s*true\s*\]',
        ),
    ],
    ids=["choice", "regex", "json_schema"],
)
async def test_an_answer_looks_as_it_must_and_its_neighbour_as_ever(
    served: Served, shape: Shape, fits: str
) -> None:
    """The answer ends of itself, and who shares the batch is answered as if alone."""
    alone = await answer(served, ask(max_tokens=40))
    warm = inference.SamplingParams(temperature=1.5, seed=3, presence_penalty=1.0)
    held, beside = await asyncio.gather(
        answer(served, ask(max_tokens=40, constraint=shape, sampling=warm)),
        answer(served, ask(max_tokens=40)),
    )
    assert re.fullmatch(fits, text(held))
    assert held[-1].finished.reason == inference.FINISH_REASON_STOP
    assert ids(beside) == ids(alone)


async def test_log_probabilities_know_nothing_of_a_constraint(served: Served) -> None:
    """They are the model's own, though it would have said something else."""
    free, _ = greedy(served, prompt_of(served), 1)
    shape = Shape(choice=inference.Choice(options=["!", "?"]))
    events = await answer(served, ask(constraint=shape, logprobs=inference.LogprobParams(top=1)))
    (first, *_) = [x for event in events for x in event.delta.logprobs]
    assert first.top[0].token_id == free[0]
    assert first.logprob < first.top[0].logprob


async def test_a_stop_string_ends_a_constrained_answer_too(served: Served) -> None:
    """Whichever ends it first does; what comes before the stop string is the answer."""
    events = await answer(served, ask(constraint=Shape(regex="abc,def"), stop=[","]))
    assert text(events) == "abc"
    assert events[-1].finished.reason == inference.FINISH_REASON_STOP


async def test_a_constrained_answer_can_be_too_long(served: Served) -> None:
    """It is cut like any other, and says so."""
    events = await answer(served, ask(constraint=Shape(regex="a{9}"), max_tokens=4))
    assert text(events) == "aaaa"
    assert events[-1].finished.reason == inference.FINISH_REASON_LENGTH


async def test_a_repeated_prompt_says_how_much_of_it_was_cached(served: Served) -> None:
    """The last token is fed in any case; the answer is the same, and nothing stays in use."""
    first = await answer(served, ask("What is it?", max_tokens=4))
    before = (await served.state()).prompt_tokens_total
    again = await answer(served, ask("What is it?", max_tokens=4))
    prompt_tokens = len(prompt_of(served, "What is it?"))
    assert first[-1].finished.usage.cached_prompt_tokens == 0
    assert again[-1].finished.usage.cached_prompt_tokens == prompt_tokens - 1
    assert ids(again) == ids(first)
    state = await served.state()
    assert state.prompt_tokens_total == before + 1
    assert state.kv_used_tokens == 0


async def test_cancelling_a_call_frees_its_slot_within_one_step(served: Served) -> None:
    """One more step at most is run for a caller who has gone."""
    served.backend.closed = True
    call = served.answers.Generate(ask())
    await call.read()
    await call.read()
    before = await served.until(lambda s: s.running == 1 and not s.waiting_prompt_tokens)
    call.cancel()
    await served.until(lambda s: s.cancelled_total == 1)
    served.backend.permits.release()
    state = await served.until(lambda s: s.running == 0)
    assert state.steps_total <= before.steps_total + 1
    assert state.kv_used_tokens == 0


async def test_a_call_on_a_stream_with_others_frees_its_slot_within_one_step(
    served: Served,
) -> None:
    """Cancelled or out of time, it costs no more than a call of its own; the others go on."""
    line = Line(served.channel, "tiny-0")
    keeping = asyncio.create_task(line.keep())
    await line.settled(10.0)
    served.backend.closed = True
    request = ask().SerializeToString()
    cancelled = line.call(request, None, ())
    assert [(await anext(cancelled)).WhichOneof("event") for _ in "12"] == ["started", "delta"]
    late = line.call(request, 2.0, ())
    assert (await anext(late)).HasField("started")
    cancelled.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        [event async for event in late]
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    before = await served.until(lambda s: s.cancelled_total == 2)
    served.backend.permits.release()
    state = await served.until(lambda s: s.running == 0 and s.waiting == 0)
    assert state.steps_total <= before.steps_total + 1
    served.backend.open()
    events = [event async for event in line.call(request, None, ())]
    keeping.cancel()
    assert ids(events) == ids(await answer(served, ask()))


async def test_a_deadline_stops_the_work_within_one_step(served: Served) -> None:
    """The caller gets DEADLINE_EXCEEDED, the slot is free after the step that ran."""
    served.backend.closed = True
    call = served.answers.Generate(ask(), timeout=1.0)
    before = await served.until(lambda s: s.running == 1 and not s.waiting_prompt_tokens)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for _ in call:
            pass
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await served.until(lambda s: s.cancelled_total == 1)
    served.backend.permits.release()
    state = await served.until(lambda s: s.running == 0)
    assert state.steps_total <= before.steps_total + 1


async def test_a_deadline_that_has_passed_gets_no_answer(served: Served) -> None:
    """Whether the client, the server's edge or the engine notices first."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for _ in served.answers.Generate(ask(), timeout=0):
            pass
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    state = await served.until(lambda s: not s.running and not s.waiting)
    assert not state.tasks, "an answer was finished for nobody"


async def test_overload_is_refused_with_a_time_to_retry(served: Served) -> None:
    """What runs and waits is protected."""
    served.backend.closed = True
    calls = [served.answers.Generate(ask()) for _ in range(MAX_RUNNING + MAX_WAITING)]
    for call in calls:
        event: Any = await call.read()
        assert event.HasField("started")
    with pytest.raises(OverloadedError) as refused:
        await answer(served, ask())
    assert refused.value.retry_after_s
    served.backend.open()
    for call in calls:
        events = await rest(call)
        assert events[-1].HasField("finished")


async def test_two_hundred_streams_at_once_all_end(folder: Path) -> None:
    """They wait in the queue and nobody is lost."""
    config = configuration(folder)
    settings = ModelConfig(name="tiny", dir=str(folder), replicas=config.models[0].replicas)
    model, backend = process.load(settings, "tiny-0")
    async with (
        process.running(config, settings, model, backend, "127.0.0.1:0") as running,
        open_channel(running.server.address, config.server) as channel,
    ):
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)

        async def one(i: int) -> Event:
            events: list[Event] = [
                e async for e in stub.Generate(ask(f"Number {i}", max_tokens=8), timeout=60)
            ]
            return events[-1]

        last = await asyncio.gather(*(one(i) for i in range(200)))
    assert all(event.HasField("finished") for event in last)


async def test_counting_counts_what_generating_feeds(served: Served) -> None:
    """Chat template included."""
    request = inference.CountTokensRequest(messages=ask().messages)
    counted = await served.answers.CountTokens(request)
    assert counted.tokens == len(prompt_of(served))
    assert counted.model == "tiny"
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await served.answers.CountTokens(inference.CountTokensRequest())
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_scores_are_the_models_log_probabilities(served: Served) -> None:
    """Against logits of one full pass, over several chunks and in a shared batch."""
    prompt = "The answer to everything is"
    continuations = [" 42", " unknown", "!"]
    response = await served.answers.Score(
        inference.ScoreRequest(prompt=prompt, continuations=continuations)
    )
    encode = served.model.text.encode
    for continuation, score in zip(continuations, response.scores, strict=True):
        first, second = encode(prompt, special=True), encode(continuation, special=False)
        tokens = np.concatenate([first, second])
        logits = served.backend.prefill(0, 0, tokens[:-1], len(second)).astype(float)
        chosen = logits[np.arange(len(second)), second]
        expected = (chosen - np.log(np.exp(logits).sum(axis=1))).sum()
        assert score.logprob == pytest.approx(expected, abs=1e-3)
        assert score.tokens == len(second)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (inference.ScoreRequest(prompt="a"), "continuations"),
        (inference.ScoreRequest(prompt="a", continuations=["b"] * 65), "continuations"),
        (inference.ScoreRequest(prompt="a", continuations=["b", ""]), "continuations[1]"),
        (inference.ScoreRequest(continuations=["b"]), "input"),
        (inference.ScoreRequest(prompt="a", continuations=["b" * 100]), "continuations[0]"),
    ],
)
async def test_a_wrong_score_request_is_refused_by_name(
    served: Served, request_: inference.ScoreRequest, field: str
) -> None:
    """As Generate does."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await served.answers.Score(request_)
    error = rpc.zeta_error(failed.value)
    assert isinstance(error, InvalidRequestError)
    assert [v.field for v in error.violations] == [field]


async def test_the_model_says_what_it_is(served: Served) -> None:
    """ListModels has the checkpoint's figures."""
    (info,) = (await served.answers.ListModels(inference.ListModelsRequest())).models
    assert (info.name, info.context_tokens, info.default_max_tokens) == ("tiny", 96, 12)
    assert (info.precision, info.runtime) == ("fp32", "onnxruntime-cpu")
    assert info.parameters == served.model.parameters > 0
    assert list(info.capabilities) == [inference.CAPABILITY_GENERATE, inference.CAPABILITY_SCORE]


async def test_the_state_adds_up(served: Served) -> None:
    """Counters tell what happened, by kind of task where there is one."""
    events = await answer(served, ask(task_kind=inference.TASK_KIND_CODE))
    state = await served.state()
    count = len(ids(events))
    assert (state.model, state.replica, state.context_tokens) == ("tiny", "tiny-0", 96)
    assert (state.requests_total, state.errors_total, state.cancelled_total) == (1, 0, 0)
    assert state.completion_tokens_total == count
    assert state.prompt_tokens_total == len(prompt_of(served))
    assert state.busy_total.ToNanoseconds() > 0
    assert state.step_time.ToNanoseconds() > 0
    (stats,) = state.tasks
    assert (stats.kind, stats.requests_total) == (inference.TASK_KIND_CODE, 1)
    assert stats.completion_tokens_total == count
    assert sum(stats.ttft.counts) == sum(stats.tpot.counts) == 1
    assert stats.ttft.sum.ToNanoseconds() == pytest.approx(
        events[-1].finished.timings.time_to_first_token.ToNanoseconds(), abs=2
    )


async def test_an_allocation_is_clamped_and_kept(served: Served) -> None:
    """Zero keeps, more than there is becomes what there is, and one request always fits."""

    async def allocate(**fields: float) -> control.Allocation:
        asked = control.Allocation(**fields)  # type: ignore[arg-type]
        request = control.SetAllocationRequest(allocation=asked)
        return (await served.controls.SetAllocation(request)).allocation

    assert (await allocate(max_running=1)).max_running == 1
    assert await allocate() == control.Allocation(
        max_running=1, kv_tokens=MAX_RUNNING * 96, weight=1
    )
    most = await allocate(max_running=999, kv_tokens=10**9, weight=2.5)
    assert (most.max_running, most.kv_tokens, most.weight) == (MAX_RUNNING, MAX_RUNNING * 96, 2.5)
    assert (await allocate(kv_tokens=1)).kv_tokens == 96
    assert (await served.state()).allocation.weight == 2.5
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await allocate(weight=math.nan)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_smaller_allocation_drops_nobody(served: Served) -> None:
    """Who has no room any more waits, and its stream goes on without a gap."""
    questions = [ask(content, max_tokens=40) for content in ("One", "Two")]
    alone = [await answer(served, question) for question in questions]
    served.backend.closed = True
    calls = [served.answers.Generate(question) for question in questions]
    await served.step_until(lambda s: s.running == MAX_RUNNING)
    allocation = control.Allocation(max_running=1)
    await served.controls.SetAllocation(control.SetAllocationRequest(allocation=allocation))
    yielded = await served.step_until(lambda s: s.running == 1)
    assert yielded.waiting == 1
    served.backend.open()
    for call, expected in zip(calls, alone, strict=True):
        events = await rest(call)
        assert ids(events) == ids(expected)
        assert text(events) == text(expected)


async def test_a_critical_request_does_not_wait_for_others(served: Served) -> None:
    """It takes the place of the lowest class, whose answer goes on afterwards."""
    questions = [
        ask("One", max_tokens=40, priority=inference.PRIORITY_BATCH),
        ask("Two", max_tokens=40, priority=inference.PRIORITY_STANDARD),
    ]
    alone = [await answer(served, question) for question in questions]
    served.backend.closed = True
    calls = [served.answers.Generate(question) for question in questions]
    await served.step_until(lambda s: s.running == MAX_RUNNING)
    answered = (await served.state()).requests_total
    urgent = ask("Three", max_tokens=3, priority=inference.PRIORITY_CRITICAL)
    asking = asyncio.create_task(answer(served, urgent))
    state = await served.step_until(lambda s: s.requests_total > answered)
    assert state.running + state.waiting == MAX_RUNNING, "the others are still at work"
    assert len(ids(await asking)) == 3
    served.backend.open()
    for call, expected in zip(calls, alone, strict=True):
        assert ids(await rest(call)) == ids(expected)


async def test_health_serves_until_a_drain(served: Served) -> None:
    """A drain is told to health checkers, and refused callers learn when to retry."""

    async def status() -> int:
        request = health_pb2.HealthCheckRequest(service=INFERENCE)
        return int((await served.health.Check(request)).status)

    assert await status() == health_pb2.HealthCheckResponse.SERVING
    served.backend.closed = True
    call = served.answers.Generate(ask())
    await call.read()
    drain = asyncio.create_task(_drain(served))
    await served.until(lambda s: s.draining)
    assert await status() == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(DrainingError) as refused:
        await answer(served, ask())
    assert refused.value.retry_after_s
    served.backend.open()
    drained = await drain
    assert (drained.finished, drained.cut) == (1, 0)
    assert (await rest(call))[-1].HasField("finished")


async def _drain(served: Served) -> control.DrainResponse:
    return await served.controls.Drain(control.DrainRequest())


async def test_a_drain_with_grace_cuts_off_what_is_late(served: Served) -> None:
    """The caller is told that the server drains, so that it goes elsewhere."""
    served.backend.closed = True
    call = served.answers.Generate(ask())
    await call.read()
    await served.until(lambda s: s.running == 1)
    request = control.DrainRequest()
    request.grace.FromMilliseconds(20)
    drained = await served.controls.Drain(request)
    assert (drained.finished, drained.cut) == (0, 1)
    with pytest.raises(DrainingError):
        await rest(call)


async def test_a_failed_device_fails_its_requests_and_the_process(served: Served) -> None:
    """Running requests get an error, and serving ends with one, so that a supervisor restarts."""
    backend = GatedBackend(process.load(served.settings, "tiny-1")[1])
    address = f"unix:{Path(served.settings.dir) / 'crash.sock'}"
    serving = asyncio.create_task(
        process.serve_model(served.config, served.settings, served.model, backend, address)
    )
    async with open_channel(address, served.config.server) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await stub.ListModels(inference.ListModelsRequest(), wait_for_ready=True)
        backend.closed = True
        call = stub.Generate(ask())
        await call.read()
        backend.broken = True
        backend.permits.release()
        with pytest.raises(StreamBrokenError):
            await rest(call)
    with pytest.raises(RuntimeError, match="device thread failed"):
        await serving


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("rename", "no such model directory"),
        ("truncate", "model.safetensors: cannot be read"),
    ],
)
def test_a_broken_checkpoint_stops_the_process_with_one_sentence(
    tmp_path: Path, damage: str, message: str
) -> None:
    """Exit code 2, the path and what to do, and no traceback."""
    folder = tiny.write(tmp_path / "tiny")
    if damage == "rename":
        folder.rename(tmp_path / "elsewhere")
    else:
        (folder / "model.safetensors").write_bytes(b"short")
    config = FleetConfig(
        fleet=Fleet(state_dir=str(tmp_path)),
        router=Router(),
        models=(ModelConfig(name="tiny", dir="tiny", replicas=(Replica(listen="127.0.0.1:0"),)),),
    )
    (tmp_path / "fleet.toml").write_bytes(dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "services.model", "--config", str(tmp_path / "fleet.toml"),
         "--model", "tiny", "--replica", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
