"""One generation without a service: the engine, in this process, with one slot."""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """An answer, and how long it took once the model was loaded."""

    prompt_token_ids: list[int]
    token_ids: list[int]
    """With the token that ended the answer."""
    text: str
    finish_reason: str
    tokens_per_s: float
    """All tokens over all the time, reading the prompt included."""
    ttft_s: float


def generate(
    folder: Path,
    asked: Asked,
    *,
    threads: int = 1,
    on_text: Callable[[str], None] = lambda _: None,
) -> Generation:
    """Answer *asked* with the model in *folder*; *on_text* is told each piece of the text.

    Raises ConfigError for a broken model, InvalidRequestError for a prompt that does not fit.
    """
    stored = runnable.load(folder)
    words = text.load(folder, vocabulary=stored.shape.vocabulary)
    tokens = _tokens(words, asked, stored)
    context = len(tokens) + asked.max_tokens
    backend = OrtBackend(
        stored.graph, stored.shape, slots=1, context_tokens=context, threads=threads
    )
    limits = Limits(max_running=1, kv_tokens=context, chunk_tokens=_CHUNK_TOKENS)
    temperature = stored.temperature if asked.temperature is None else asked.temperature
    request = Request(
        id=0,
        tokens=tokens,
        max_tokens=asked.max_tokens,
        sampling=Sampling(temperature=temperature, seed=asked.seed),
        stop_ids=stored.stop_ids,
    )
    return _run(Engine(backend, limits), request, Answer(words, ()), on_text)


def _run(
    engine: Engine, request: Request, answer: Answer, on_text: Callable[[str], None]
) -> Generation:
    ids, pieces, ttft_s, start_s = list[int](), list[str](), 0.0, perf_counter()
    engine.add(request)
    while not engine.idle:
        new = [o for o in engine.step().outputs if isinstance(o, Generated)]
        if new and not ids:
            ttft_s = perf_counter() - start_s
        ids += [o.token for o in new]
        pieces.append(answer.feed(new).text)
        on_text(pieces[-1])
    assert answer.finish is not None, "the engine ends when the answer does"
    return Generation(
        prompt_token_ids=request.tokens.tolist(),
        token_ids=ids,
        text="".join(pieces),
        finish_reason=answer.finish.value,
        tokens_per_s=round(len(ids) / (perf_counter() - start_s), 3),
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
