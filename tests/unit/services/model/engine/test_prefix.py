"""Reuse and pre-emption on ONNX Runtime: no answer depends on what slots hold, or on who yields."""

from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.graph import checkpoint, decoder
from tests.unit.services.model import tiny

SLOTS, CONTEXT = 3, 64
LIMITS = Limits(max_running=2, kv_tokens=SLOTS * CONTEXT, chunk_tokens=20)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> OrtBackend:
    """A small random model; what its slots hold is each engine's to know."""
    stored = checkpoint.load(tiny.write(tmp_path_factory.mktemp("prefix")))
    model = decoder.build(stored)
    return OrtBackend(model, stored.shape, slots=SLOTS, context_tokens=CONTEXT, threads=1)


Asked: TypeAlias = tuple[int, int, int, int, int]
"""Which beginning and how much of it, what the rest is, how long the answer, which rank."""

prompts = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(1, 40),
        st.integers(2, 3),
        st.integers(1, 9),
        st.integers(0, 2),
    ),
    min_size=2,
    max_size=7,
)


def request(index: int, asked: Asked) -> Request:
    """Return a request whose beginning others may share."""
    seed, shared, last, count, rank = asked
    beginning = np.random.default_rng(seed).integers(0, 250, shared)
    return Request(id=index, tokens=np.append(beginning, [last] * 4), max_tokens=count, rank=rank)


@settings(max_examples=25)
@given(prompts, st.integers(0, 3))
def test_neither_changes_a_token_or_its_probability(
    backend: OrtBackend, asked: list[Asked], together: int
) -> None:
    """Log-probabilities are within 1e-5 of those of an engine that holds nothing."""
    requests = [request(i, one) for i, one in enumerate(asked)]
    shared = Engine(backend, LIMITS)
    outputs: dict[int, list[Generated]] = {}
    for one in requests:
        shared.add(one)
        for _ in range(together):
            collect(shared, outputs)
    while not shared.idle:
        collect(shared, outputs)
    for one in requests:
        fresh = Engine(backend, LIMITS)
        alone: dict[int, list[Generated]] = {}
        fresh.add(one)
        while not fresh.idle:
            collect(fresh, alone)
        expected, got = alone[one.id], outputs[one.id]
        assert [o.token for o in got] == [o.token for o in expected]
        np.testing.assert_allclose(
            [o.logprob for o in got], [o.logprob for o in expected], atol=1e-5
        )


def collect(engine: Engine, outputs: dict[int, list[Generated]]) -> None:
    """Step, and sort what comes of it by request."""
    for output in engine.step().outputs:
        assert isinstance(output, Generated)
        outputs.setdefault(output.id, []).append(output)
