"""How a checkpoint turns hidden states into one vector, as its sentence-transformers files say.

`modules.json` lists the steps, `1_Pooling/config.json` says which hidden states count,
`config_sentence_transformers.json` names prompts, `sentence_bert_config.json` the longest text.
Whatever would silently give other vectors than the makers meant is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from services.kit.errors import ConfigError
from services.model.engine.types import Pool

FILE = "encoder.json"
"""What an imported directory has instead of those files."""
_POOLS: Mapping[str, Pool] = {"lasttoken": "last", "mean_tokens": "mean", "cls_token": "first"}
"""By name of the mode, without `pooling_mode_`."""
_STEPS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])


class Encoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with the last hidden states."""

    pool: Pool
    normalise: bool
    """Scale each vector to unit length."""
    prompts: dict[str, str] = {}
    """What may go before a text, by name."""
    default_prompt: str = ""
    """Name of the prompt that goes before a text where none is asked for; empty: none."""
    max_tokens: int = 0
    """Longest text; 0: the context."""


def find(folder: Path) -> Encoder | None:
    """Read what *folder* says, None where it is no encoder. Raises ConfigError."""
    if not (folder / "modules.json").exists():
        return None
    steps = _steps(folder)
    settings, bert = _settings(folder, "config_sentence_transformers.json"), _settings(
        folder, "sentence_bert_config.json"
    )  # fmt: skip
    try:
        found = msgspec.convert(
            {
                "pool": _pool(folder / steps["Pooling"] / "config.json"),
                "normalise": "Normalize" in steps,
                "prompts": settings.get("prompts") or {},
                "default_prompt": settings.get("default_prompt_name") or "",
                "max_tokens": bert.get("max_seq_length") or 0,
            },
            Encoder,
        )
    except msgspec.ValidationError as error:
        raise _wrong(folder, f"the sentence-transformers files: {error}") from error
    if found.default_prompt and found.default_prompt not in found.prompts:
        raise _wrong(folder, f"no prompt {found.default_prompt!r}, which is to be the default")
    return found


def write(folder: Path, encoder: Encoder) -> None:
    """Write *encoder* for an imported directory."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(encoder)) + b"\n")


def read(folder: Path) -> Encoder:
    """Read what `write` wrote. Raises ConfigError."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Encoder)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _wrong(folder, f"{FILE}: {error}") from error


def _steps(folder: Path) -> dict[str, str]:
    """Return the directories of the steps, by kind."""
    try:
        modules = msgspec.json.decode((folder / "modules.json").read_bytes())
        found = [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in modules]
    except (OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise _wrong(folder, f"modules.json: {error!r}") from error
    kinds = [kind for kind, _ in found]
    if kinds not in _STEPS:
        known = " or ".join(", ".join(steps) for steps in _STEPS)
        raise _wrong(folder, f"modules.json: steps {', '.join(kinds)}; supported: {known}")
    return dict(found)


def _pool(path: Path) -> Pool:
    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise _wrong(path, str(error)) from error
    modes = [k.removeprefix("pooling_mode_") for k, v in config.items() if v is True]
    modes = [mode for mode in modes if mode != "include_prompt"]
    if isinstance(config.get("pooling_mode"), str):
        modes = [config["pooling_mode"]]
    modes = [{"mean": "mean_tokens", "cls": "cls_token"}.get(mode, mode) for mode in modes]
    if len(modes) != 1 or modes[0] not in _POOLS:
        raise _wrong(path, f"pools by {', '.join(modes) or 'nothing'}; known: {', '.join(_POOLS)}")
    if config.get("include_prompt", True) is not True:
        raise _wrong(path, "leaves the prompt out of pooling, which is not supported")
    return _POOLS[modes[0]]


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise _wrong(folder, f"{name}: {error}") from error


def _wrong(place: Path, reason: str) -> ConfigError:
    return ConfigError(f"{place}: {reason}; fetch the files again or choose another encoder")
