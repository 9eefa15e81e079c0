"""The committed heads on prompts that no template wrote."""

import numpy as np
import pytest

from services.embedding.checkpoint import MINILM_SHA256
from services.embedding.core.profile import TASKS, Profile, profiles
from services.embedding.encoder import OnnxEncoder
from services.embedding.heads import head_for

PROMPTS = (
    ("code", "My flask route always gives a 404, what did I do wrong? @app.route('/user')"),
    ("code", "Please port this perl one-liner to awk: perl -lane 'print $F[2]' log.txt"),
    ("code", "count connected components with BFS, any language is fine"),
    ("code", "my pydantic model silently drops an extra field, how do I forbid that"),
    ("code", "ALTER TABLE hangs for minutes on production, what locks it?"),
    ("code", "Write an rspec example for a mailer that must not send twice"),
    ("code", "What does sorted({3: 'x', 1: 'y'}) give in Python?"),
    ("reasoning", "A rumour reaches three more people every hour. When do all 900 pupils know it?"),
    ("reasoning", "Today is not Monday, and tomorrow is not Friday. Which days could it be?"),
    ("reasoning", "Prove that a number and the sum of its digits leave the same rest by nine."),
    ("reasoning", "What is 17 * 23 - 144 / 12?"),
    ("reasoning", "A lift carries 630 kg. How many people of 74 kg each may enter at once?"),
    ("reasoning", "Three dice are thrown. How likely is a total of exactly ten?"),
    ("reasoning", "For which values of a does x^2 + ax + 9 = 0 have one solution only?"),
    ("general", "My sister is getting divorced, how can I support her?"),
    ("general", "Which composer went deaf and still wrote symphonies?"),
    ("general", "Draft an announcement that our office moves to the second floor in May"),
    ("general", "Is oat milk better for the climate than cow's milk?"),
    ("general", "phew, what a day"),
    ("general", "How would a Spaniard say 'see you on Thursday'?"),
    ("general", "What makes Venice sink, and what is done against it?"),
    ("embedding", "query: waterproof hiking boots women"),
    ("embedding", "passage: The Danube rises in the Black Forest and flows into the Black Sea."),
    (
        "embedding",
        "The museum holds more than two thousand drawings. They were given by a collector in 1921.",
    ),
)


def profiled(minilm: OnnxEncoder, sha256: str, texts: list[str]) -> list[Profile]:
    vectors = np.concatenate([minilm.run([minilm.prepare(text).ids]) for text in texts])
    _, head = head_for(sha256, vectors.shape[1])
    return profiles(texts, vectors, head)


@pytest.mark.parametrize(("sha256", "least"), [(MINILM_SHA256, 21), ("another", 18)])
def test_kinds_of_everyday_prompts_are_told(minilm: OnnxEncoder, sha256: str, least: int) -> None:
    """Most of 24; the head without embeddings, which any encoder gets, is allowed more errors."""
    found = profiled(minilm, sha256, [text for _, text in PROMPTS])
    likeliest = [TASKS[int(np.argmax(one.tasks))] for one in found]
    wrong = [
        (kind, text)
        for kind, (asked, text) in zip(likeliest, PROMPTS, strict=True)
        if kind != asked
    ]

    assert len(PROMPTS) - len(wrong) >= least, wrong


def test_harder_requests_look_harder_and_longer(minilm: OnnxEncoder) -> None:
    """A proof against a sum, an essay against a capital."""
    texts = [
        "What is 3 + 4?",
        "Prove that there are infinitely many primes of the form 4k + 3.",
        "What is the capital of Spain?",
        "Write a detailed essay about the causes of the Thirty Years' War.",
    ]
    plus, proof, capital, essay = profiled(minilm, MINILM_SHA256, texts)

    assert proof.difficulty_ratio > plus.difficulty_ratio + 0.3
    assert essay.output_tokens > 5 * capital.output_tokens
