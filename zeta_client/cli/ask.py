"""`zeta ask`: one question, answered as a stream."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from zeta.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse

from zeta_client import wire
from zeta_client.answer import Answer
from zeta_client.cli import decision, shell

_STDIN = "-"
_INT32, _INT64 = 2**31 - 1, 2**63 - 1
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The question")]
Policy = Annotated[
    str, typer.Option(help="fast, balanced, quality, or the operator's own; default: the router's")
]
Deadline = Annotated[
    float | None, typer.Option(metavar="S", min=0.001, max=86_400, help="Seconds, in all")
]
Model = Annotated[str, typer.Option(metavar="NAME", help="Ask this model; default: routed")]
MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=_INT32, help="Longest answer")
]


def ask(
    prompt: Prompt,
    *,
    policy: Policy = "",
    deadline: Deadline = None,
    model: Model = "",
    max_tokens: MaxTokens = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0: greedy; default: the model's")
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, max=16, help="Several answers of one model")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=_INT64, help="Of the chance in sampling")
    ] = None,
    session: Annotated[
        str, typer.Option(metavar="NAME", help="Stay where the session's beginning is cached")
    ] = "",
    messages: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help='What was said before PROMPT: a list of {"role", "content"}; "-": stdin',
        ),
    ] = None,
    consent_to_train: Annotated[
        bool, typer.Option("--consent-to-train", help="The operator may keep prompt and answer")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the decision as well")] = False,
    direct: Annotated[
        bool, typer.Option("--direct", help="Stream from the replica, with the router's ticket")
    ] = False,
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Ask, and stream the answer."""
    said = [] if messages is None else _read(messages)
    request = shell.checked(
        wire.question,
        [*said, {"role": "user", "content": prompt}],
        model=model,
        policy=policy,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        explain=explain,
        samples=samples if samples > 1 else None,
        session_id=session,
        consent_to_train=consent_to_train,
    )
    reach = shell.reach(config, target)
    shell.run(_ask(reach, request, deadline_s=deadline, direct=direct, as_json=as_json))


def _read(file: Path) -> list[Mapping[str, str]]:
    """Read a conversation; it is checked where the request is made."""
    try:
        text = sys.stdin.read() if str(file) == _STDIN else file.read_text(encoding="utf-8")
        said = json.loads(text)
    except OSError as error:
        shell.fail(f"--messages {file}: {error.strerror}")
    except ValueError as error:
        shell.fail(f"--messages {file}: no JSON ({error})")
    if not isinstance(said, list):
        shell.fail(f'--messages {file}: must be a list of {{"role", "content"}}, got {said!r:.80}')
    return said


async def _ask(
    reach: shell.Reach,
    request: GenerateRequest,
    *,
    deadline_s: float | None,
    direct: bool,
    as_json: bool,
) -> None:
    answer, start_s = Answer(), perf_counter()
    async with reach() as client:
        events = client.generate(request, deadline_s=deadline_s, lookaside=direct)
        async for event in events:
            answer.add(event, perf_counter() - start_s)
            _show(event, as_json=as_json, live=request.samples <= 1)
    if as_json:
        shell.emit(summary(answer))
        return
    _say_samples(answer)
    shell.notes().print(_in_short(answer), style="dim")
    if answer.complete.HasField("decision"):
        decision.show(answer.complete.decision)


def _show(event: GenerateResponse, *, as_json: bool, live: bool) -> None:
    """Show an event as it comes; several answers would run into one another."""
    kind = event.WhichOneof("event")
    if as_json and kind in ("delta", "handover"):
        shell.emit({kind: MessageToDict(getattr(event, kind), preserving_proto_field_name=True)})
    elif live and not as_json and event.delta.text:
        sys.stdout.write(event.delta.text)
        sys.stdout.flush()


def _say_samples(answer: Answer) -> None:
    """Say several answers one after the other; a single one has been shown."""
    several = answer.samples
    if len(several) == 1:
        shell.say("")
        return
    for number, sample in enumerate(several):
        shell.notes().print(
            f"sample {number} · {sample.completion_tokens} tokens · {sample.finish_reason}",
            style="dim",
        )
        shell.say(sample.text)


def summary(answer: Answer) -> Mapping[str, Any]:
    """Return the object that `zeta ask --json` ends with."""
    finished = answer.complete
    found: dict[str, Any] = {
        "text": answer.text,
        "model": answer.model,
        "plan": answer.plan,
        "decision_id": answer.decision_id,
        "finish_reason": answer.finish_reason,
        "usage": {
            "prompt_tokens": finished.usage.prompt_tokens,
            "completion_tokens": finished.usage.completion_tokens,
            "cached_prompt_tokens": finished.usage.cached_prompt_tokens,
        },
        "ttft_s": round(answer.ttft_s, 6),
        "total_s": round(answer.total_s, 6),
        "handovers": answer.handovers,
    }
    if finished.samples:
        found["samples"] = [asdict(sample) for sample in answer.samples]
    if finished.HasField("decision"):
        found["decision"] = decision.as_json(finished.decision)
    return found


def _in_short(answer: Answer) -> str:
    tokens = answer.complete.usage.completion_tokens
    return (
        f"{answer.model} · {answer.plan} · first token {answer.ttft_s * 1e3:.0f} ms · "
        f"{tokens} tokens, {answer.tokens_per_s:.0f}/s · decision {answer.decision_id}"
    )
