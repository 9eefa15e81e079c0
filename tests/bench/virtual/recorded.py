"""What each model of a fleet answered to each prompt, as a file.

[{"prompt": …, "kind": …, "family": …, "answers": {MODEL: {"text": …, "right": …, …}}}]
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from services.kit import aio
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from zeta_client import wire
from zeta_client.answer import Answer
from zeta_client.async_client import AsyncClient
from zeta_client.cli.up import started
from zeta_client.fleet.processes import in_state_dir, on_free_ports
from zeta_client.load.options import KINDS
from zeta_client.tasks import Task, generate, is_correct

_CALLERS: Final = 16


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model's likeliest answer to a prompt."""

    text: str
    right: bool
    tokens: int
    prompt_tokens: int
    mean_logprob: float


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One prompt."""

    prompt: str
    kind: str
    family: str
    answers: Mapping[str, Given]
    """By model."""


async def record(config: FleetConfig, prompts: int, seed: int) -> list[Row]:
    """Start a fleet and have every model answer *prompts* of the demo. Raises ZetaError.

    At full speed: the pace of the models says nothing about what they answer.
    """
    tasks = generate(prompts, split="demo", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        models = tuple(msgspec.structs.replace(model, pace=None) for model in config.models)
        quick = msgspec.structs.replace(config, models=models)
        own = in_state_dir(on_free_ports(quick), Path(folder))
        async with started(own):
            given = {m.name: await _given(own, m.replicas[0].listen, tasks) for m in own.models}
    rows = []
    for i, t in enumerate(tasks):
        answers = {model: answers[i] for model, answers in given.items()}
        rows.append(Row(prompt=t.prompt, kind=t.kind, family=t.family, answers=answers))
    return rows


async def _given(config: FleetConfig, address: str, tasks: Sequence[Task]) -> list[Given]:
    """Have the model at *address* answer all of *tasks*."""
    found: dict[int, Given] = {}
    waiting = iter(enumerate(tasks))
    async with AsyncClient(address, settings=config.server) as model:

        async def caller() -> None:
            for i, task in waiting:
                found[i] = await _answer(model, task)

        await aio.all_of(*(caller() for _ in range(_CALLERS)))
    return [found[i] for i in range(len(tasks))]


async def _answer(model: AsyncClient, task: Task) -> Given:
    answer = Answer()
    async for event in model.generate(wire.question(task.prompt, temperature=0.0)):
        answer.add(event, 0.0)
    ended = answer.complete
    return Given(
        text=answer.text,
        right=is_correct(task, answer.text),
        tokens=ended.usage.completion_tokens,
        prompt_tokens=ended.usage.prompt_tokens,
        mean_logprob=ended.mean_logprob,
    )


def write(file: Path, rows: Sequence[Row]) -> None:
    """Write *rows*. Raises ConfigError where that cannot be done."""
    try:
        file.write_bytes(msgspec.json.encode(rows))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a file that can be written") from error


def read(file: Path, config: FleetConfig) -> list[Row]:
    """Read what was recorded. Raises ConfigError where it does not fit the models of *config*."""
    try:
        rows = msgspec.json.decode(file.read_bytes(), type=list[Row])
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; record it first") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: not what `record` writes ({error}); record it anew") from error
    names = {model.name for model in config.models}
    missing = sorted({name for row in rows for name in names - row.answers.keys()})
    if missing:
        raise ConfigError(f"{file}: no answers of {', '.join(missing)}; record it anew")
    for half in halves(rows):
        if lacking := sorted(set(KINDS) - {row.kind for row in half}):
            raise ConfigError(f"{file}: a half has no {lacking[0]} prompt; record more --prompts")
    return rows


def halves(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return what is learned on beforehand, and what is asked in a run."""
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]
