"""Tokenizer, template, incremental decoding and stop strings."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template

from services.kit.errors import ConfigError, InvalidRequestError
from services.model import text
from services.model.text import Detokeniser, Message, StopStrings, Text
from tests.unit.services.model import tiny

TEXT = Text(tiny.byte_tokenizer(), None, {})
END = TEXT.vocabulary - 1
THINK = TEXT.vocabulary - 3


def decoded(ids: list[int]) -> list[str]:
    """Return the pieces that a detokeniser gives for *ids*, the flushed one last."""
    detokeniser = Detokeniser(TEXT)
    return [*(detokeniser.feed(i) for i in ids), detokeniser.flush()]


@given(st.text())
def test_pieces_are_the_text_and_each_token_comes_as_soon_as_it_is_whole(source: str) -> None:
    """Nothing is lost, and nothing is held once a code point is complete."""
    ids = TEXT.encode(source, special=False).tolist()
    pieces = decoded(ids)
    assert "".join(pieces) == source
    if "\ufffd" not in source:
        assert not pieces[-1]
        assert "\ufffd" not in "".join(pieces)


@given(st.lists(st.integers(0, END)))
def test_pieces_of_any_tokens_are_the_text_of_all(ids: list[int]) -> None:
    """Even bytes that are no text decode as they would together."""
    assert "".join(decoded(ids)) == TEXT.decode(ids)


def test_half_a_code_point_is_held_back() -> None:
    """A euro sign is three tokens here and comes with the last of them."""
    assert decoded(TEXT.encode("a€b", special=False).tolist()) == ["a", "", "", "€", "b", ""]


def test_thinking_marks_are_text_and_control_tokens_are_not() -> None:
    """Clients strip thoughts themselves; <|im_end|> is never shown."""
    a = int(TEXT.encode("a", special=False)[0])
    assert "".join(decoded([THINK, a, END])) == "<think>a"


@given(
    st.text(alphabet="ab\n", max_size=12),
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=3),
    st.data(),
)
def test_a_stop_string_ends_the_text_wherever_it_is_cut(
    source: str, stops: list[str], data: st.DataObject
) -> None:
    """However a text arrives, what comes out ends before the first stop string."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(source)), max_size=4)))
    edges = [0, *cuts, len(source)]
    guard, out = StopStrings(stops), ""
    for start, stop in itertools.pairwise(edges):
        out += guard.feed(source[start:stop])
        if guard.stopped:
            break
    out += guard.flush()
    found = _first_complete(source, edges, stops)
    assert out == (source if found is None else source[:found])
    assert guard.stopped == (found is not None)


def _first_complete(source: str, edges: list[int], stops: list[str]) -> int | None:
    """Where the text is cut: the earliest start among stops whole in the shortest prefix."""
    for edge in edges[1:]:
        starts = [at for stop in stops if (at := source[:edge].find(stop)) >= 0]
        if starts:
            return min(starts)
    return None


def test_only_what_may_become_a_stop_string_is_held() -> None:
    """Text flows on as soon as it cannot be the beginning of a stop."""
    guard = StopStrings(["END"])
    assert [guard.feed(piece) for piece in ("xE", "N", "xEN", "D")] == ["x", "", "ENx", ""]
    assert guard.stopped


def test_the_chat_template_makes_the_prompt(tmp_path: Path) -> None:
    """Messages become what the model was trained on."""
    loaded = text.load(tiny.write(tmp_path))
    prompt = loaded.render([Message(role="user", content="Hi")])
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_file_beats_the_one_in_the_settings(tmp_path: Path) -> None:
    """Newer checkpoints keep it in a file of its own."""
    tiny.write(tmp_path).joinpath("chat_template.jinja").write_text("{{ messages[0].content }}!")
    assert text.load(tmp_path).render([Message(role="user", content="Hi")]) == "Hi!"


def test_what_a_template_refuses_is_the_callers_mistake(tmp_path: Path) -> None:
    """raise_exception is how templates say that a conversation is wrong."""
    tiny.write(tmp_path).joinpath("chat_template.jinja").write_text(
        "{{ raise_exception('no system messages') }}"
    )
    with pytest.raises(InvalidRequestError, match="no system messages"):
        text.load(tmp_path).render([Message(role="system", content="Hi")])


def test_a_template_cannot_leave_its_sandbox(tmp_path: Path) -> None:
    """Weights from elsewhere bring no code."""
    tiny.write(tmp_path).joinpath("chat_template.jinja").write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    )
    with pytest.raises(InvalidRequestError, match="unsafe"):
        text.load(tmp_path).render([Message(role="user", content="Hi")])


def test_without_a_template_a_conversation_is_refused() -> None:
    """A base model takes prompts only."""
    with pytest.raises(InvalidRequestError, match="no chat template"):
        TEXT.render([Message(role="user", content="Hi")])


def test_a_broken_tokenizer_or_template_names_the_file(tmp_path: Path) -> None:
    """The operator learns what to replace."""
    tiny.write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ConfigError, match="chat template is broken"):
        text.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: cannot be read"):
        text.load(tmp_path)


@given(st.text())
def test_the_lower_bound_of_tokens_is_one(source: str) -> None:
    """A text never has fewer tokens than the bound says."""
    assert TEXT.fewest_tokens(source) <= len(TEXT.encode(source, special=False))


@given(
    st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<think>", "a€ ", "\n"]), max_size=6)
)
def test_nobody_types_a_control_token(parts: list[str]) -> None:
    """Its text is there, as text; everything else has the tokens that it always had."""
    content = "".join(parts)
    chat = Text(tiny.byte_tokenizer(), Template(tiny.TEMPLATE), {})
    prompt = chat.encode(chat.render([Message(role="user", content=content)]), special=False)
    start, end = END - 1, END
    assert [i for i in prompt.tolist() if i in (start, end)] == [start, end, start]
    typed = prompt[prompt.tolist().index(start) :].tolist()
    inside = typed[typed.index(start) + 1 : typed.index(end)]
    assert TEXT.decode(inside) == f"user\n{content}"
    plain = content.replace("<|im_end|>", "").replace("<|im_start|>", "")
    if plain == content:
        assert inside == TEXT.encode(f"user\n{content}", special=False).tolist()


def test_a_mark_without_a_number_is_itself() -> None:
    """Private code points that somebody really sends are kept."""
    for odd in ("\U0010fffd", "a\U0010fffdb", "\U0010fffd\U0010fffd"):
        assert TEXT.decode(TEXT.encode(odd, special=False).tolist()) == odd
