"""Answers: text, stop strings, ends and sums."""

from services.model.answer import Answer, Piece
from services.model.engine.types import FinishReason, Generated
from services.model.text import Text
from tests.unit.services.model import tiny

TEXT = Text(tiny.byte_tokenizer(), None, {})
END = TEXT.vocabulary - 1


def generated(source: str, *, ends: FinishReason | None = None) -> list[Generated]:
    """Return the tokens of *source*, each with log-probability -1; *ends* adds the end."""
    ids = TEXT.encode(source, special=False).tolist()
    out = [Generated(1, i, -1.0, (), None) for i in ids]
    if ends is FinishReason.STOP:
        out.append(Generated(1, END, -4.0, (), ends))
    elif ends:
        out[-1] = Generated(1, ids[-1], -1.0, (), ends)
    return out


def texts(answer: Answer, *runs: list[Generated]) -> list[str]:
    """Feed *runs* and return their texts."""
    return [answer.feed(run).text for run in runs]


def test_an_answer_ends_with_its_stop_token() -> None:
    """The end counts as a token and is no text."""
    answer = Answer(TEXT, ())
    assert texts(answer, generated("Pa"), generated("ris", ends=FinishReason.STOP)) == ["Pa", "ris"]
    assert answer.finish is FinishReason.STOP
    assert answer.completion_tokens == 6
    assert answer.mean_logprob == -9 / 6


def test_a_stop_string_ends_the_answer_and_drops_what_follows() -> None:
    """Tokens after the one that completed the stop string are not the answer's."""
    answer = Answer(TEXT, ("\n\n",))
    piece = answer.feed(generated("one\n\ntwo", ends=FinishReason.STOP))
    assert piece.text == "one"
    assert len(piece.tokens) == answer.completion_tokens == 5
    assert answer.finish is FinishReason.STOP
    assert answer.feed(generated("more")) == Piece()


def test_what_was_held_back_comes_with_the_end() -> None:
    """Neither a possible stop string nor half a code point is lost."""
    answer = Answer(TEXT, ("\n\n",))
    assert texts(answer, generated("a\n"), generated("b\n", ends=FinishReason.LENGTH)) == [
        "a",
        "\nb\n",
    ]
    assert answer.finish is FinishReason.LENGTH
    half = generated("€")[:2]
    cut = [half[0], Generated(1, half[1].token, -1.0, (), FinishReason.LENGTH)]
    assert Answer(TEXT, ()).feed(cut).text == "\ufffd"


def test_a_stop_string_in_the_last_token_counts_as_a_stop() -> None:
    """Even where the length was reached with it."""
    answer = Answer(TEXT, ("b",))
    assert texts(answer, generated("ab", ends=FinishReason.LENGTH)) == ["a"]
    assert answer.finish is FinishReason.STOP


def test_without_tokens_there_is_no_mean() -> None:
    """Not zero, which would be certainty."""
    assert Answer(TEXT, ()).mean_logprob is None


def test_an_answer_begun_elsewhere_goes_on_behind_what_is_out() -> None:
    """Wherever it was cut, even in a code point or a possible stop string: no gap, no repeat."""
    tokens = generated("€ one\n two €", ends=FinishReason.STOP)
    for cut in range(1, len(tokens)):
        first, second = Answer(TEXT, ("\n\n",)), Answer(TEXT, ("\n\n",))
        shown = first.feed(tokens[:cut]).text
        second.go_on([t.token for t in tokens[:cut]], shown, None)
        assert shown + second.feed(tokens[cut:]).text == "€ one\n two €"
        assert second.completion_tokens == len(tokens) - cut


def test_text_without_its_tokens_goes_on_as_well() -> None:
    """What may become a stop string is out already: it is not shown twice."""
    answer = Answer(TEXT, ("\n\n",))
    answer.go_on(TEXT.encode("one\n", special=False).tolist(), "one\n", None)
    assert answer.feed(generated("two", ends=FinishReason.STOP)).text == "two"


def test_an_answer_may_turn_out_to_be_whole() -> None:
    """By its last token, or by a stop string; what was held back comes all the same."""
    half = [t.token for t in generated("a€")[:-1]]
    for tokens, finish, reason in (
        (half, FinishReason.LENGTH, FinishReason.LENGTH),
        (TEXT.encode("a\n\nb", special=False).tolist(), None, FinishReason.STOP),
    ):
        answer = Answer(TEXT, ("\n\n",))
        answer.go_on(tokens, "", finish)
        assert answer.finish is reason
        assert answer.feed(()).text.startswith("a")
