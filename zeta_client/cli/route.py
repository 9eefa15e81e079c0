"""`zeta route`: what would happen to a request now, and why."""

from zeta.inference.v1.inference_service_pb2 import GenerateRequest

from zeta_client import wire
from zeta_client.cli import decision, shell
from zeta_client.cli.ask import Deadline, MaxTokens, Model, Policy, Prompt


def route(
    prompt: Prompt,
    *,
    policy: Policy = "",
    deadline: Deadline = None,
    model: Model = "",
    max_tokens: MaxTokens = None,
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Show the decision for a question without running it."""
    request = shell.checked(
        wire.question,
        prompt,
        model=model,
        policy=policy,
        max_tokens=max_tokens,
        explain=True,
    )
    shell.run(_route(shell.reach(config, target), request, deadline, as_json=as_json))


async def _route(
    reach: shell.Reach, request: GenerateRequest, deadline_s: float | None, *, as_json: bool
) -> None:
    async with reach() as client:
        found = await client.route(request, deadline_s=deadline_s)
    if as_json:
        shell.emit(decision.as_json(found))
    else:
        decision.show(found)
