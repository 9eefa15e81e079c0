"""Every arrival gets a question of its kind, class and length."""

from collections import Counter
from typing import Any

import numpy as np
from zeta.inference.v1.inference_service_pb2 import PRIORITY_BATCH, PRIORITY_CRITICAL

from zeta_client.load.arrivals import Arrival, poisson
from zeta_client.load.shots import Shot, shots

EVEN = {"code": 1.0, "reasoning": 1.0, "general": 1.0}


def asked(arrivals: list[Arrival], **options: Any) -> list[Shot]:
    """Questions of an even mix, a fifth of them critical."""
    return shots(
        arrivals,
        mix={**EVEN, "general": 2.0},
        priorities={"batch": 4.0, "critical": 1.0},
        seed=1,
        rng=np.random.default_rng(2),
        **options,
    )


def test_kinds_and_classes_follow_their_weights() -> None:
    """Half of the questions are general, a fifth critical, and every one is of its kind."""
    found = asked(poisson(100.0, 20.0, np.random.default_rng(1)))
    kinds, classes = Counter(s.kind for s in found), Counter(s.priority for s in found)

    assert 0.46 < kinds["general"] / len(found) < 0.54
    assert 0.17 < classes["critical"] / len(found) < 0.23
    for shot in found[:50]:
        assert shot.task
        assert shot.task.kind == shot.kind
        assert shot.request.messages.messages[0].content == shot.task.prompt
        wanted = PRIORITY_CRITICAL if shot.priority == "critical" else PRIORITY_BATCH
        assert shot.request.priority == wanted


def test_tenants_follow_their_weights_and_change_nothing_else() -> None:
    """Who asks is drawn last: the same seed gives the same questions with and without."""
    arrivals = poisson(100.0, 20.0, np.random.default_rng(1))
    nobody, found = asked(arrivals), asked(arrivals, tenants={"big": 9.0, "small": 1.0})

    assert {s.request.tenant for s in nobody} == {""}
    assert 0.07 < Counter(s.tenant for s in found)["small"] / len(found) < 0.13
    assert all(s.request.tenant == s.tenant for s in found)
    assert [(s.task, s.priority) for s in found] == [(s.task, s.priority) for s in nobody]


def test_a_traces_lengths_rank_its_questions() -> None:
    """The longest request of a trace gets the longest prompts, the shortest the shortest."""
    arrivals = [
        Arrival(at_s=float(i), kind="code", prompt_tokens=tokens, output_tokens=1)
        for i, tokens in enumerate([9000, 10, 500, 20, 8000])
    ]
    lengths = [len(s.task.prompt) for s in asked(arrivals) if s.task]

    assert np.argsort(lengths).tolist() == [1, 3, 2, 4, 0]


def test_a_length_ratio_makes_text_of_that_length() -> None:
    """Prompt and answer have the trace's lengths times the ratio; nobody judges the answer."""
    one = Arrival(at_s=0.0, prompt_tokens=1000, output_tokens=200)
    (shot,) = asked([one], length_ratio=0.1, tokens_per_word=2.0)

    assert shot.task is None
    assert shot.request.max_tokens == 20
    assert 48 <= len(shot.request.prompt.split()) <= 54
