"""One generation without a service: the engine, in this process, with a slot for each answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from services.kit.errors import invalid
from services.model import text
from services.model.answer import Answer
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Ids, Limits, Request, Sampling
from services.model.graph import runnable
from services.model.graph.runnable import Runnable

_CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to generate."""

    prompt: str
    raw: bool = False
    """Feed the prompt as it is, without the chat template."""
    max_tokens: int = 256
    temperature: float | None = None
    """0: greedy; None: what the model's makers sample at."""
    seed: int = 0
    samples: int = 1
    """Answers; each has a seed of its own that follows from `seed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer."""

    token_ids: list[int]
    """With the token that ended it."""
    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """An answer, and how long it took once the model was loaded."""

    prompt_token_ids: list[int]
    token_ids: list[int]
    """With the token that ended the answer; of several answers, the first."""
    text: str
    finish_reason: str
    samples: list[Sample]
    """Every answer, the first included."""
    tokens_per_s: float
    """All tokens of all answers over all the time, reading the prompt included."""
    ttft_s: float


def generate(
    folder: Path,
    asked: Asked,
    *,
    threads: int = 1,
    on_text: Callable[[str], None] = lambda _: None,
) -> Generation:
    """Answer *asked* with the model in *folder*; *on_text* is told each piece of the first text.

    Raises ConfigError for a broken model, InvalidRequestError for a prompt that does not fit.
    """
    stored = runnable.load_generator(folder)
    words = text.load(folder, vocabulary=stored.shape.vocabulary)
    tokens = _tokens(words, asked, stored)
    context = len(tokens) + asked.max_tokens
    backend = OrtBackend(
        stored.graph, stored.shape, slots=asked.samples, context_tokens=context, threads=threads
    )
    limits = Limits(
        max_running=asked.samples,
        kv_tokens=asked.samples * context,
        chunk_tokens=_CHUNK_TOKENS,
    )
    temperature = stored.temperature if asked.temperature is None else asked.temperature
    sampling = Sampling(temperature=temperature, seed=asked.seed)
    requests = [
        Request(
            id=i,
            tokens=tokens,
            max_tokens=asked.max_tokens,
            sampling=sampling.of_sample(i),
            stop_ids=stored.stop_ids,
        )
        for i in range(asked.samples)
    ]
    growing = [_Growing(Answer(words, ())) for _ in requests]
    return _run(Engine(backend, limits), requests, growing, on_text)


@dataclass(slots=True)
class _Growing:
    """An answer in the making."""

    answer: Answer
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def done(self) -> Sample:
        assert self.answer.finish is not None, "the engine ends when the answer does"
        text = "".join(self.pieces)
        return Sample(token_ids=self.ids, text=text, finish_reason=self.answer.finish.value)


def _run(
    engine: Engine, requests: list[Request], growing: list[_Growing],
    on_text: Callable[[str], None],
) -> Generation:  # fmt: skip
    ttft_s, start_s = 0.0, perf_counter()
    for request in requests:
        engine.add(request)
    while not engine.idle:
        for new in engine.step().outputs:
            assert isinstance(new, Generated), "nothing else was asked for"
            ttft_s = ttft_s or perf_counter() - start_s
            one = growing[new.id]
            one.ids.append(new.token)
            one.pieces.append(one.answer.feed([new]).text)
            if new.id == 0:
                on_text(one.pieces[-1])
    samples = [one.done() for one in growing]
    first, count = samples[0], sum(len(s.token_ids) for s in samples)
    return Generation(
        prompt_token_ids=requests[0].tokens.tolist(),
        token_ids=first.token_ids,
        text=first.text,
        finish_reason=first.finish_reason,
        samples=samples,
        tokens_per_s=round(count / (perf_counter() - start_s), 3),
        ttft_s=round(ttft_s, 6),
    )


def _tokens(words: text.Text, asked: Asked, stored: Runnable) -> Ids:
    plain = asked.raw or not words.has_template
    message = text.Message(role="user", content=asked.prompt)
    prompt = asked.prompt if plain else words.render([message])
    tokens = words.encode(prompt, special=plain)
    if not len(tokens):
        raise invalid("prompt", "holds no token that the model knows")
    room = stored.shape.context_tokens
    if len(tokens) + asked.max_tokens > room:
        raise invalid(
            "prompt",
            f"{len(tokens)} tokens and {asked.max_tokens} more do not fit in {room} tokens of "
            "context; ask for fewer with --max-tokens",
        )
    return tokens
