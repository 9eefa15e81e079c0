"""One TOML file describes a fleet; every process reads it, frozen and fully checked.

Unknown keys stop the start. `load` reports every mistake at once, each with its key's path.
Paths inside the file are relative to the file.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from services.kit.errors import ConfigError

Ratio = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Listen = Annotated[str, Meta(pattern=r"^(unix:.+|.+:[0-9]+)$")]
"""HOST:PORT, or unix:PATH."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every section: frozen, and deaf to unknown keys."""


class Fleet(Config, frozen=True, kw_only=True):
    """What the fleet is called and where it keeps its state."""

    name: Name = "zeta"
    state_dir: str = "~/.local/state/zeta"
    """Journals, learned state, caches."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Tls(Config, frozen=True, kw_only=True):
    """Certificates, PEM. With `require_client_cert`, callers show `cert` too."""

    cert: str
    key: str
    ca: str = ""
    require_client_cert: bool = False
    allowed_names: tuple[str, ...] = ()
    """Common or alternative names a caller's certificate may carry; empty: any that `ca` signed."""


class Server(Config, frozen=True, kw_only=True):
    """What every gRPC server and channel of the fleet shares."""

    max_message_bytes: Count = 16 * 1024 * 1024
    drain_grace_s: NonNegative = 10.0
    """Running calls get this long at shutdown."""
    tls: Tls | None = None


class Tickets(Config, frozen=True, kw_only=True):
    """Permissions to stream from a replica without the router in between."""

    keys: str = ""
    """A file of keys, a name and a key per line; the first signs, all verify. Empty: no tickets."""
    life_s: Positive = 5.0
    """A ticket's call has to begin within this time."""


class Telemetry(Config, frozen=True, kw_only=True):
    """The telemetry service and its agents."""

    listen: Listen = "127.0.0.1:7071"
    metrics: str = ""
    report_interval_s: Positive = 0.1
    silent_after_s: Positive = 2.0
    gone_after_s: Positive = 60.0
    history_s: Positive = 600.0
    history_step_s: Positive = 1.0


class EmbeddingReplica(Config, frozen=True, kw_only=True):
    """One embedding process."""

    listen: Listen
    metrics: str = ""


class Embedding(Config, frozen=True, kw_only=True):
    """The embedding and profiler service."""

    dir: str = ""
    """A sentence-transformers directory; empty: the installed all-MiniLM-L6-v2."""
    name: Name = "minilm"
    max_tokens: Annotated[int, Meta(ge=16, le=512)] = 128
    """Longer texts keep their head and tail."""
    adapters: str = ""
    """What `zeta eval outcomes --adapters` wrote; empty: vectors are the same for every model."""
    max_batch: Count = 16
    cache_entries: Count = 10_000
    threads: Count = 1
    replicas: tuple[EmbeddingReplica, ...] = (EmbeddingReplica(listen="127.0.0.1:7072"),)


class Replica(Config, frozen=True, kw_only=True):
    """One process of a model."""

    listen: Listen
    metrics: str = ""
    agent_metrics: str = ""
    dcgm: str = ""
    """HOST:PORT of the dcgm-exporter on the replica's machine; empty: none."""


class TensorRT(Config, frozen=True, kw_only=True):
    """A model's `runtime = "tensorrt"`."""

    plan_dir: str = ""
    """Where built plans are; empty: `plans` in the state directory."""
    build: bool = True
    """Build a plan where there is none; false: stop the start."""


class Pace(Config, frozen=True, kw_only=True):
    """How slow a model is made: to see on a small machine how a larger fleet behaves."""

    step_s: NonNegative = 0.0
    """A decode step takes at least so long,"""
    step_s_per_running: NonNegative = 0.0
    """and so much longer for each request in it;"""
    prefill_s_per_token: NonNegative = 0.0
    """a prompt, so long per token."""


class Model(Config, frozen=True, kw_only=True):
    """One model of one size."""

    name: Name
    dir: str
    """An imported model, or a Hugging Face directory."""
    runtime: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    device: Literal["cpu", "cuda"] = "cpu"
    """Where ONNX Runtime runs; "cuda" needs onnxruntime-gpu in its place."""
    gpu: Annotated[int, Meta(ge=0)] = 0
    """Which card, as CUDA counts them."""
    cuda_graphs: bool = False
    """ONNX Runtime on a card: replay each decode step as one launch, captured per batch size."""
    tensorrt: TensorRT = TensorRT()
    serves: tuple[Literal["generate", "embed"], ...] = ()
    """Empty: "embed" for a checkpoint with sentence-transformers files, else "generate"."""
    pace: Pace | None = None
    threads: Count = 1
    max_running: Annotated[int, Meta(ge=1, le=256)] = 16
    max_waiting: Count = 1024
    context_tokens: Annotated[int, Meta(ge=0)] = 0
    """0: what the checkpoint says."""
    prefill_chunk_tokens: Count = 128
    default_max_tokens: Count = 256
    requires_ticket: bool = False
    """Take calls from the router and from callers with a ticket alone."""
    usd_per_m_prompt_tokens: NonNegative = 0.0
    usd_per_m_completion_tokens: NonNegative = 0.0
    priors: Mapping[Literal["code", "reasoning", "general"], Ratio] = {}
    """Expected quality per kind of task before anything is learned; 0.5 where not given."""
    replicas: tuple[Replica, ...]


class Policy(Config, frozen=True, kw_only=True):
    """How utility is weighed; see zeta.router.v1.Policy."""

    latency_weight_per_s: NonNegative = 0.0
    cost_weight_per_usd: NonNegative = 0.0
    explore_ratio: Annotated[float, Meta(ge=0, le=0.5)] = 0.02
    deadline_confidence: Ratio = 0.9
    """Probability of being in time that a request must have to wait for a place at a model."""
    downgrade_ratio: Ratio = 0.8
    """Share of the wanted plan's quality that another must have to stand in for want of time."""
    max_calls: Count = 3
    balancer: Literal[
        "predicted_latency", "least_request", "round_robin", "p2c", "peak_ewma", "prequal"
    ] = "predicted_latency"
    forecast: bool = True
    """Price capacity by what is forecast to come; false: by present use alone."""
    plans: tuple[Literal["single", "cascade", "vote", "best_of", "refine", "hedge"], ...] = ()
    """Kinds of plans that may be chosen; empty: all."""


class Router(Config, frozen=True, kw_only=True):
    """The router."""

    listen: Listen = "127.0.0.1:7070"
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes behind that address; the metrics of number n, from 0, are n ports further."""
    metrics: str = ""
    embedding_model: str = ""
    """Encoder of callers who name none; empty: the embedding service's own."""
    default_policy: str = "balanced"
    policies: Mapping[str, Policy] = msgspec.field(default_factory=lambda: {"balanced": Policy()})
    profile_timeout_s: Positive = 0.02
    profile_cache_entries: Count = 10_000
    max_in_flight: Count = 256
    max_queued: Count = 1024
    retry_ratio: Ratio = 0.1
    """Retries may add this share to the load."""
    target_utilisation: Annotated[float, Meta(gt=0, le=1)] = 0.9
    """A model that is forecast to be used more gets dearer."""
    max_extra_load: Ratio = 0.05
    """Hedges may add this share to the calls; 0: no hedging."""
    resume_keep_s: Positive = 60.0
    """A caller whose connection broke may come back for its answer so long."""
    breaker_failures: Count = 3
    breaker_open_s: Positive = 2.0
    outlier_ratio: NonNegative = 5.0
    """A replica that many times slower than its peers is left out for a while; 0: none is."""
    half_life_outcomes: Positive = 2000.0
    """Outcomes after which an old one weighs half."""
    warm_start: str = ""
    """A state saved by `zeta eval outcomes --save`, or a journal: where learning begins."""
    journal: str = "router.sqlite3"
    """Relative to the state directory."""
    journal_keep_days: Positive = 30.0
    """Older decisions are forgotten, with their outcomes and feedback; what was learned stays."""


class Device(Config, frozen=True, kw_only=True):
    """Replicas that share one device: the router divides its slots and cache between them."""

    name: Name
    replicas: tuple[str, ...]
    """As telemetry calls them, such as "coder-7b-0"."""
    slots: Count
    """Requests that run at once, on all of them together."""
    kv_tokens: Annotated[int, Meta(ge=0)] = 0
    """Cache tokens of all of them together; 0: not shared."""
    least_slots: Count = 1
    """What no replica goes below."""
    change_every_s: Positive = 2.0
    """Time between two changes."""


class FleetConfig(Config, frozen=True, kw_only=True):
    """The whole file."""

    fleet: Fleet = Fleet()
    server: Server = Server()
    tickets: Tickets = Tickets()
    telemetry: Telemetry = Telemetry()
    embedding: Embedding = Embedding()
    router: Router = Router()
    models: tuple[Model, ...]
    devices: tuple[Device, ...] = ()


def load(path: Path) -> FleetConfig:
    """Read and check *path*. Raises ConfigError that lists every mistake, a line each."""
    config = _decode(path)
    mistakes = list(_contradictions(config))
    if mistakes:
        raise ConfigError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return _with_absolute_paths(config, path.resolve().parent)


def dump(config: FleetConfig) -> bytes:
    """Encode *config* as TOML that `load` reads back."""
    return msgspec.toml.encode(config)


def state_dir(config: FleetConfig) -> Path:
    """Return the fleet's state directory, made if need be."""
    folder = Path(config.fleet.state_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_named(config: FleetConfig, name: str) -> Model:
    """Find a model. Raises ConfigError that lists the names there are."""
    for model in config.models:
        if model.name == name:
            return model
    names = ", ".join(m.name for m in config.models)
    raise ConfigError(f"no model {name!r} in the configuration; there are: {names}")


def replica_name(model: str, index: int) -> str:
    """Name replica number *index* (from 0) of *model*, unique in the fleet."""
    return f"{model}-{index}"


def _decode(path: Path) -> FleetConfig:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    mistakes = list(_mistakes(table, FleetConfig, ""))
    if mistakes:
        raise ConfigError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return msgspec.convert(table, FleetConfig)


def _mistakes(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with *value* as a *kind*, all of it; msgspec alone stops at the first."""
    inner = _struct_in(kind)
    if inner and isinstance(value, list):
        for i, item in enumerate(value):
            yield from _mistakes(item, inner, f"{where}[{i}]")
    elif inner and isinstance(value, dict) and get_origin(kind) is Mapping:
        for key, item in value.items():
            yield from _mistakes(item, inner, _join(where, key))
    elif inner and isinstance(value, dict):
        yield from _mistakes_in_section(value, inner, where)
    else:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            yield f"{where}: {error} (got {value!r})"


def _mistakes_in_section(
    table: dict[str, Any], section: type[msgspec.Struct], where: str
) -> Iterator[str]:
    fields = {f.name: f for f in msgspec.structs.fields(section)}
    for key in sorted(table.keys() - fields.keys()):
        yield f"{_join(where, key)}: unknown key; known here: {', '.join(sorted(fields))}"
    for name, field in fields.items():
        if name in table:
            yield from _mistakes(table[name], field.type, _join(where, name))
        elif field.required:
            yield f"{_join(where, name)}: missing"


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """Return the section that *kind* is, or is a list, mapping or option of."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _contradictions(config: FleetConfig) -> Iterator[str]:
    """Yield what is well formed and still cannot work."""
    if not config.models:
        yield "models: at least one is needed"
    names = [m.name for m in config.models]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"models: the name {name!r} is given {names.count(name)} times"
    for i, model in enumerate(config.models):
        if not model.replicas:
            yield f"models[{i}].replicas: at least one is needed"
        if model.requires_ticket and not config.tickets.keys:
            yield f"models[{i}].requires_ticket: needs tickets.keys"
    yield from _encoders(config)
    listen = config.router.listen
    if config.router.workers > 1 and (listen.startswith("unix:") or listen.endswith(":0")):
        yield f"router.workers: several share a fixed TCP port, and router.listen is {listen!r}"
    yield from _devices(config)
    if config.router.default_policy not in config.router.policies:
        name, known = config.router.default_policy, ", ".join(sorted(config.router.policies))
        yield f"router.default_policy: no policy {name!r}; there are: {known}"
    if config.telemetry.gone_after_s < config.telemetry.silent_after_s:
        yield "telemetry.gone_after_s: must not be less than telemetry.silent_after_s"
    listens = list(addresses(config))
    for address in sorted(
        {a for a in listens if listens.count(a) > 1 and a and not a.endswith(":0")}
    ):
        yield f"the address {address!r} is given {listens.count(address)} times"


def _encoders(config: FleetConfig) -> Iterator[str]:
    """Yield what is wrong with the names of encoders, of which each means one kind of vector."""
    models, own = [m.name for m in config.models], config.embedding.name
    if own in models:
        yield f"embedding.name: {own!r} is a model's name; vectors of two encoders are never mixed"
    if config.router.embedding_model not in ("", own, *models):
        name, known = config.router.embedding_model, ", ".join((own, *models))
        yield f"router.embedding_model: no encoder {name!r}; there are: {known}"


def _devices(config: FleetConfig) -> Iterator[str]:
    """Yield what is wrong with devices that are shared."""
    most = {
        replica_name(model.name, i): model.max_running
        for model in config.models
        for i in range(len(model.replicas))
    }
    named = [name for device in config.devices for name in device.replicas]
    for i, device in enumerate(config.devices):
        for name in device.replicas:
            if name not in most:
                yield f"devices[{i}].replicas: no replica {name!r}; there are: {', '.join(most)}"
            elif named.count(name) > 1:
                yield f"devices[{i}].replicas: {name!r} is named {named.count(name)} times"
            elif most[name] < device.least_slots:
                yield f"devices[{i}].least_slots: {name!r} has only max_running = {most[name]}"
        if device.slots < device.least_slots * len(device.replicas):
            yield f"devices[{i}].slots: {device.slots} are fewer than least_slots for each replica"


def addresses(config: FleetConfig) -> Iterator[str]:
    """Yield every address that some process of the fleet listens on, "" for those not given."""
    models = [r for m in config.models for r in m.replicas]
    replicas: list[EmbeddingReplica | Replica] = [*config.embedding.replicas, *models]
    yield from (config.telemetry.listen, config.telemetry.metrics)
    yield from (config.router.listen, config.router.metrics)
    for replica in replicas:
        yield from (replica.listen, replica.metrics)
    yield from (r.agent_metrics for r in models)


def _with_absolute_paths(config: FleetConfig, base: Path) -> FleetConfig:
    replace = msgspec.structs.replace
    tls = config.server.tls
    state_dir = _absolute(config.fleet.state_dir, base)

    def plans(model: Model) -> TensorRT:
        default = f"{state_dir}/plans" if model.runtime == "tensorrt" else ""
        return replace(model.tensorrt, plan_dir=_absolute(model.tensorrt.plan_dir, base) or default)

    return replace(
        config,
        fleet=replace(config.fleet, state_dir=state_dir),
        models=tuple(
            replace(m, dir=_absolute(m.dir, base), tensorrt=plans(m)) for m in config.models
        ),
        tickets=replace(config.tickets, keys=_absolute(config.tickets.keys, base)),
        router=replace(config.router, warm_start=_absolute(config.router.warm_start, base)),
        embedding=replace(
            config.embedding,
            dir=_absolute(config.embedding.dir, base),
            adapters=_absolute(config.embedding.adapters, base),
        ),
        server=replace(
            config.server,
            tls=tls
            and replace(
                tls, **{k: _absolute(getattr(tls, k), base) for k in ("cert", "key", "ca")}
            ),
        ),
    )


def _absolute(path: str, base: Path) -> str:
    return str((base / Path(path).expanduser()).resolve()) if path else ""
