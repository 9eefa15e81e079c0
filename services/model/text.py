"""Text to tokens and back: tokenizer, chat template, incremental decoding, stop strings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.kit.errors import ConfigError, invalid
from services.model.graph.checkpoint import read_json

Ids = NDArray[np.int64]

_MARK, _FIRST_NUMBER = "\U0010fffd", 0x100000
"""Private code points: a mark and a number stand for a control token that is none."""
_REPLACEMENT = "\ufffd"
"""What a decoder gives for bytes that are no code point, or not one yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


class Text:
    """A checkpoint's tokenizer and chat template."""

    def __init__(
        self, tokenizer: Tokenizer, template: Template | None, names: Mapping[str, str]
    ) -> None:
        self._tokenizer, self._template, self._names = tokenizer, template, names
        self.vocabulary: int = tokenizer.get_vocab_size()
        added = tokenizer.get_added_tokens_decoder().values()
        self._control = sorted((t.content for t in added if t.special), key=len, reverse=True)
        self._longest_bytes = max(len(piece.encode()) for piece in tokenizer.get_vocab())

    @property
    def has_template(self) -> bool:
        """True where conversations can be rendered."""
        return self._template is not None

    def render(self, messages: Sequence[Message]) -> str:
        """Turn a conversation into a prompt. Raises InvalidRequestError where it cannot be.

        What looks like a control token in a message becomes a mark, which `encode` reads as the
        text that it was: nobody ends another's turn by typing its end.
        """
        if self._template is None:
            raise invalid("messages", "this model has no chat template; send `prompt` instead")
        try:
            return self._template.render(
                messages=[{"role": m.role, "content": self._marked(m.content)} for m in messages],
                add_generation_prompt=True,
                **self._names,
            )
        except TemplateError as error:
            raise invalid("messages", f"the model's chat template refuses: {error}") from error

    def encode(self, text: str, *, special: bool) -> Ids:
        """Return the token ids (T,) of *text*; *special* adds what the tokenizer begins with."""
        first, *rest = text.split(_MARK)
        parts = [self._encoded(first, special=special)]
        for part in rest:
            number = ord(part[0]) - _FIRST_NUMBER if part else -1
            known = 0 <= number < len(self._control)
            literal = self._control[number] if known else _MARK
            parts.append(self._literally(literal))
            parts.append(self._encoded(part[known:], special=False))
        return np.concatenate(parts) if rest else parts[0]

    def encode_within(self, text: str, most: int) -> tuple[Ids, bool]:
        """Return the token ids (T ≤ *most*,) of *text*, and whether its end had to be left out.

        What the tokenizer puts around a text is there in any case.
        """
        (encoded,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        room = max(most - self._tokenizer.num_special_tokens_to_add(is_pair=False), 0)
        cut = len(encoded.ids) > room
        encoded.truncate(room)
        whole = self._tokenizer.post_process(encoded)
        return np.array(whole.ids, np.int64), cut

    def fewest_tokens(self, text: str) -> int:
        """Return a lower bound of the tokens of *text*, at no cost."""
        return len(text) // self._longest_bytes

    def _encoded(self, text: str, *, special: bool) -> Ids:
        # Unlike `encode`, this lets other threads run meanwhile.
        (encoded,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return np.array(encoded.ids, np.int64)

    def _literally(self, text: str) -> Ids:
        encoded = self._plain.encode(text, add_special_tokens=False)
        return np.array(encoded.ids, np.int64)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer again, made when first needed, to which control tokens are plain text."""
        plain = Tokenizer.from_str(self.serialised())
        plain.encode_special_tokens = True
        return plain

    def _marked(self, content: str) -> str:
        for number, token in enumerate(self._control):
            if token in content:
                content = content.replace(token, f"{_MARK}{chr(_FIRST_NUMBER + number)}")
        return content

    def serialised(self) -> str:
        """Return the tokenizer as the text of a tokenizer.json."""
        text: str = self._tokenizer.to_str()
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of *ids* without special tokens."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


def load(folder: Path, *, vocabulary: int | None = None) -> Text:
    """Read tokenizer and chat template of *folder*, whose weights know *vocabulary* tokens.

    Raises ConfigError.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ConfigError(f"{path}: cannot be read: {error}; fetch the file again") from error
    known = tokenizer.get_vocab_size()
    if not known or (vocabulary is not None and known > vocabulary):
        raise ConfigError(
            f"{folder}: the tokenizer knows {known} tokens, the weights {vocabulary}; "
            "both must come from one model"
        )
    settings_path = folder / "tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.exists() else {}
    names = {k: _content(settings.get(k)) for k in ("bos_token", "eos_token", "pad_token")}
    source = _template_source(folder, settings)
    return Text(tokenizer, _compiled(source, folder) if source else None, names)


class Detokeniser:
    """Decodes an answer token by token; the pieces together are the text of the whole.

    Decodes a window of a few tokens anew each time, since a token's text depends on its neighbours
    (a code point in several tokens, a space that only the first word lacks), and holds back
    what the next token may still change.
    """

    def __init__(self, text: Text) -> None:
        self._text = text
        self._window: list[int] = []
        self._settled = 0
        """Tokens of the window whose text is out; they are kept as context."""
        self._emitted = 0
        """Characters of the window's text that are out."""

    def feed(self, token: int) -> str:
        """Take the next token; return the text that no later token can change."""
        self._window.append(token)
        text = self._text.decode(self._window)
        # Only the last character can be half a code point: earlier ones are decided.
        stable = text.removesuffix(_REPLACEMENT)
        new = stable[self._emitted :]
        self._emitted = max(self._emitted, len(stable))
        if new and stable == text:
            self._slide()
        return new

    def flush(self) -> str:
        """Return what was held back, once no token follows."""
        return self._text.decode(self._window)[self._emitted :]

    def _slide(self) -> None:
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        self._emitted = len(self._text.decode(self._window))


class StopStrings:
    """Ends a text before the first stop string, and holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take more text; return what certainly comes before any stop string."""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back, once no text follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of *text* that *stop* begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _template_source(folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    try:
        if path.exists():
            return path.read_text(encoding="utf-8")
        source = settings.get("chat_template") or ""
        if isinstance(source, list):
            named = {entry["name"]: entry["template"] for entry in source}
            return str(named.get("default", ""))
        return str(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder}: the chat template cannot be read: {error!r}; fetch the files again"
        ) from error


def _compiled(source: str, folder: Path) -> Template:
    """Compile a template in a sandbox: it comes with weights from elsewhere."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        autoescape=False,
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(source)
    except (TemplateError, RecursionError) as error:
        raise ConfigError(f"{folder}: the chat template is broken: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _content(token: Any) -> str:
    """A special token's text, written plainly or as an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
