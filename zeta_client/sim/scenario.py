"""A scenario of the simulator: one TOML file, frozen and fully checked.

`models.speeds` names the JSON that `zeta model bench DIR --json` prints; `models.costs` gives the
same by hand. Paths are relative to the file.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from services.kit.config import (
    Count,
    Device,
    FleetConfig,
    Name,
    NonNegative,
    Policy,
    Positive,
    Ratio,
    Replica,
    Router,
    replica_name,
)
from services.kit.config import Model as ModelConfig
from services.kit.errors import ConfigError
from zeta_client.sim.server import Costs, fitted

NonNegativeInt = Annotated[int, Meta(ge=0)]
Kind: TypeAlias = Literal["code", "reasoning", "general"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section: frozen, and deaf to unknown keys."""


class Model(Section, frozen=True, kw_only=True):
    """One model and its replicas."""

    name: Name
    replicas: Count = 1
    slowdowns: tuple[Positive, ...] = (1.0,)
    """How much slower each replica's machine is, in turn."""
    max_running: Count = 16
    costs: Costs | None = None
    speeds: str = ""
    quality: Mapping[Kind, Ratio] = {}
    """Share of right answers; 0.5 where not given."""
    output_tokens: Mapping[Kind, Positive] = {}
    """Mean length of an answer; 32 where not given."""
    usd_per_m_prompt_tokens: NonNegative = 0.0
    usd_per_m_completion_tokens: NonNegative = 0.0


class Failure(Section, frozen=True, kw_only=True):
    """Replicas that die and come back."""

    model: Name
    replica: Annotated[int, Meta(ge=0)] = 0
    at_s: NonNegative
    for_s: Positive


class Scenario(Section, frozen=True, kw_only=True):
    """The whole file."""

    duration_s: Positive = 30.0
    warm_s: NonNegative = 0.0
    """Runs so long before anything counts, at a quarter of the rate and without deadlines.

    The router learns lengths and times."""
    rate: Positive = 20.0
    burst: str = ""
    """FACTOR,EVERY_S,FOR_S."""
    traces: tuple[str, ...] = ()
    """[KIND=]FILE.csv."""
    length_ratio: NonNegative = 0.0
    """A trace's lengths times this; 0: the lengths below."""
    mix: Mapping[Kind, NonNegative] = msgspec.field(
        default_factory=lambda: dict.fromkeys(get_args(Kind), 1.0)
    )
    prompt_tokens: Count = 32
    spread: NonNegative = 0.4
    """Standard deviation of the logarithm of lengths."""
    deadline_s: Positive | None = None
    slo_ttft_s: Positive | None = None
    slo_total_s: Positive | None = None
    routers: Count = 1
    shared_slots: Annotated[int, Meta(ge=0)] = 0
    """Requests that all replicas together run at once, shared by need; 0: each its max_running."""
    report_interval_s: Positive = 0.1
    returns: NonNegativeInt = 0
    """How often a caller that is refused comes back, when it is told to."""
    policy: Policy = Policy(latency_weight_per_s=0.05)
    models: tuple[Model, ...]
    failures: tuple[Failure, ...] = ()


def load(path: Path) -> Scenario:
    """Read and check *path*. Raises ConfigError."""
    try:
        scenario = msgspec.toml.decode(path.read_bytes(), type=Scenario)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for mistake in _mistakes(scenario):
        raise ConfigError(f"{path}: {mistake}")
    models = tuple(_with_costs(model, path.parent) for model in scenario.models)
    traces = tuple(_beside(text, path.parent) for text in scenario.traces)
    return msgspec.structs.replace(scenario, models=models, traces=traces)


def scaled(scenario: Scenario, times: int) -> Scenario:
    """Return *times* as many replicas under as many times the load."""
    models = tuple(msgspec.structs.replace(m, replicas=m.replicas * times) for m in scenario.models)
    return msgspec.structs.replace(
        scenario,
        models=models,
        rate=scenario.rate * times,
        shared_slots=scenario.shared_slots * times,
    )


def fleet_of(scenario: Scenario) -> FleetConfig:
    """Return the fleet as the router is configured for it."""
    models = tuple(
        ModelConfig(
            name=model.name,
            dir=".",
            max_running=model.max_running,
            usd_per_m_prompt_tokens=model.usd_per_m_prompt_tokens,
            usd_per_m_completion_tokens=model.usd_per_m_completion_tokens,
            priors=model.quality,
            replicas=tuple(Replica(listen=f"unix:{model.name}-{i}") for i in range(model.replicas)),
        )
        for model in scenario.models
    )
    reactive = msgspec.structs.replace(scenario.policy, forecast=False)
    policies = {"routed": scenario.policy, "reactive": reactive}
    router = Router(default_policy="routed", policies=policies)
    names = tuple(replica_name(m.name, i) for m in models for i in range(len(m.replicas)))
    device = Device(name="shared", replicas=names, slots=max(scenario.shared_slots, 1))
    return FleetConfig(
        models=models, router=router, devices=(device,) if scenario.shared_slots else ()
    )


def _mistakes(scenario: Scenario) -> Iterator[str]:
    names = {model.name: model for model in scenario.models}
    if len(names) < len(scenario.models) or not names:
        yield "models: at least one is needed, each with a name of its own"
    if 0 < scenario.shared_slots < sum(model.replicas for model in scenario.models):
        yield f"shared_slots: {scenario.shared_slots} are fewer than there are replicas"
    for model in scenario.models:
        if (model.costs is None) == (not model.speeds):
            yield f"models {model.name!r}: give costs or speeds, and not both"
    for failure in scenario.failures:
        if failure.model not in names or failure.replica >= names[failure.model].replicas:
            yield f"failures: there is no replica {failure.replica} of {failure.model!r}"


def _with_costs(model: Model, folder: Path) -> Model:
    if model.costs is not None:
        return model
    file = folder / model.speeds
    try:
        speeds = json.loads(file.read_bytes())["speeds"]
        rows = [(s["batch"], s["prefill_tokens_per_s"], s["decode_tokens_per_s"]) for s in speeds]
        costs = fitted(rows)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{file}: not what `zeta model bench DIR --json` prints: {error!r}"
        ) from error
    return msgspec.structs.replace(model, costs=costs)


def _beside(text: str, folder: Path) -> str:
    kind, found, file = text.partition("=")
    return f"{kind}={folder / file}" if found else str(folder / text)
