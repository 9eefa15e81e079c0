"""What no message can hold is refused before anything is sent, by one kind of error."""

import numpy as np
import pytest
from zeta.embedding.v1.embedding_service_pb2 import Embedding, EmbedResponse

from services.kit.errors import InvalidRequestError
from zeta_client import wire


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "well\udcff"}, r"'well\\udcff' is no Unicode text; send UTF-8"),
        ({"prompt": "x", "session_id": "\ud800"}, r"'\\ud800' is no Unicode text"),
        ({"prompt": "x", "max_tokens": 10**11}, "out of range: 100000000000; give a smaller"),
        ({"prompt": "x", "seed": 2**70}, "out of range"),
    ],
)
def test_a_question_that_cannot_be_written_is_refused(
    fields: dict[str, object], expected: str
) -> None:
    """The value is quoted, and the error is one of Zeta's own."""
    with pytest.raises(InvalidRequestError, match=expected):
        wire.question(**fields)  # type: ignore[arg-type] # wrong values are the point


def test_a_text_that_is_no_unicode_is_not_embedded() -> None:
    """As with a question; what can be written is written as it was said."""
    with pytest.raises(InvalidRequestError, match="no Unicode text"):
        wire.embed_request(["\udcff"], "", encoder="", prompt_name="")
    made = wire.embed_request(["a", "b"], "m", encoder="e", prompt_name="query")

    assert (list(made.texts), made.target_model) == (["a", "b"], "m")
    assert (made.model, made.prompt_name) == ("e", "query")


def test_a_verdict_that_cannot_be_written_is_refused() -> None:
    """Answers and references are texts as well."""
    with pytest.raises(InvalidRequestError, match="no Unicode text"):
        wire.verification_request("d", "exact", "\udcff", "x", feedback_id="")


def test_embeddings_come_as_rows() -> None:
    """(N, D), in the order of the texts."""
    rows = EmbedResponse(embeddings=[Embedding(values=[1.0, 2.0]), Embedding(values=[3.0, 4.0])])

    assert np.array_equal(wire.vectors(rows), [[1.0, 2.0], [3.0, 4.0]])
