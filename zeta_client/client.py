"""Talk to a router, or to any Zeta server: to a client the router is a model.

with Client("127.0.0.1:7070") as zeta:
    for text in zeta.ask("What is 17 * 24?"):
        print(text, end="")

Errors are those of `services.kit.errors`; messages are the protos' own, embeddings are NumPy
arrays. `async_client` is the same on asyncio, and does the work here, in a thread of its own.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, get_args

from services.kit.config import Server
from zeta_client.async_client import UNARY_TIMEOUT_S, AsyncClient
from zeta_client.background import Background
from zeta_client.resume import PATIENT, Patience

P = ParamSpec("P")
T = TypeVar("T")


def _waits(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    """Make a method of AsyncClient one that blocks until its result is there."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._background.result(lambda zeta: method(zeta, *args, **kwargs))

    return call


def _reads(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> "Callable[Concatenate[Client, P], Generator[T, None, None]]":
    """Make a method of AsyncClient one whose iterator blocks; its call begins with the first."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._background.each(lambda zeta: method(zeta, *args, **kwargs))

    shown = inspect.signature(method)
    item: Any = get_args(shown.return_annotation)[0]
    shown = shown.replace(return_annotation=Generator[item, None, None])
    call.__signature__ = shown  # type: ignore[attr-defined] # as inspect wants it
    return call


class Client:
    """Calls that block, from as many threads as there are.

    *target* is HOST:PORT or unix:PATH; *settings* hold TLS and message limits. Every call but
    a stream fails after *timeout_s*. Unreachable servers raise UnavailableError, and so does a
    client that is closed. *resume* says how long to go on with an answer whose connection broke;
    `resume.NEVER`: not at all. With *share_stream*, answers that come over one connection share a
    stream where the server has it.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7070",
        *,
        settings: Server | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
        resume: Patience = PATIENT,
        share_stream: bool = True,
    ) -> None:
        make = partial(
            AsyncClient,
            target,
            settings=settings,
            timeout_s=timeout_s,
            resume=resume,
            share_stream=share_stream,
        )
        self._background = Background(make, f"zeta {target}")

    def __enter__(self) -> Self:
        """Connect when first used."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel; running calls are cancelled, and raise UnavailableError."""
        self._background.close()

    generate = _reads(AsyncClient.generate)
    ask = _reads(AsyncClient.ask)
    answers = _waits(AsyncClient.answers)
    count_tokens = _waits(AsyncClient.count_tokens)
    list_models = _waits(AsyncClient.list_models)
    score = _waits(AsyncClient.score)
    judge = _waits(AsyncClient.judge)
    embed = _waits(AsyncClient.embed)
    embedded = _waits(AsyncClient.embedded)
    profile = _waits(AsyncClient.profile)
    route = _waits(AsyncClient.route)
    feedback = _waits(AsyncClient.feedback)
    verify = _waits(AsyncClient.verify)
    forget_texts = _waits(AsyncClient.forget_texts)
    watch_decisions = _reads(AsyncClient.watch_decisions)
    policies = _waits(AsyncClient.policies)
    update_policy = _waits(AsyncClient.update_policy)
    watch_fleet = _reads(AsyncClient.watch_fleet)
    history = _waits(AsyncClient.history)
