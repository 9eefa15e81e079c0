"""Where beginnings are cached, and how much that is believed."""

import numpy as np
import pytest

from router_svc.core.affinity import _ENTRIES, Affinity
from router_svc.core.types import Ask
from tests.unit.router_svc.fixtures import ask

LONG = "x" * 1024


def answered(affinity: Affinity, about: Ask, replica: int = 1, cached: float = 0.0) -> None:
    """Replica number *replica* of three fed 100 tokens and wrote 20."""
    affinity.answered(
        about, replica, prompt_tokens=100.0, completion_tokens=20.0, cached_tokens=cached
    )


def test_a_session_is_held_where_it_was_answered() -> None:
    """All of the last turn, question and answer, and by nobody else."""
    affinity, about = Affinity(3), ask(session="s", tenant="t")
    assert not affinity.cached(about, 150.0).any()
    assert not affinity.in_session(about)
    answered(affinity, about)
    assert affinity.cached(about, 150.0).tolist() == [0.0, 120.0, 0.0]
    assert affinity.cached(about, 80.0).tolist() == [0.0, 80.0, 0.0]
    assert affinity.in_session(about)


def test_sessions_of_two_tenants_are_two() -> None:
    """Even where they have one name; and no name is no session."""
    affinity = Affinity(3)
    answered(affinity, ask(session="s", tenant="t"))
    for other in (ask(session="s", tenant="u"), ask(session="r", tenant="t"), ask(tenant="t")):
        assert not affinity.cached(other, 150.0).any()
        assert not affinity.in_session(other)


def test_equal_beginnings_are_held_by_everyone_who_fed_them() -> None:
    """A quarter of the characters, a quarter of the tokens; and that is no session."""
    affinity, about = Affinity(3), ask(LONG, prefix="p")
    answered(affinity, about, 0)
    answered(affinity, about, 2)
    assert affinity.cached(about, 100.0).tolist() == [25.0, 0.0, 25.0]
    assert not affinity.in_session(about)


def test_a_replica_that_drops_its_cache_is_believed_less() -> None:
    """What models report corrects the estimate, both ways."""
    affinity, about = Affinity(3), ask(session="s")
    for _ in range(30):
        answered(affinity, about, cached=0.0)
    assert affinity.cached(about, 100.0)[1] == pytest.approx(5.0)
    for _ in range(30):
        answered(affinity, about, cached=100.0)
    assert affinity.cached(about, 100.0)[1] > 99.0


def test_memory_is_bounded() -> None:
    """The session that was quiet for longest is forgotten."""
    affinity = Affinity(3)
    for n in range(_ENTRIES + 1):
        answered(affinity, ask(session=f"{n}"))
    assert not affinity.in_session(ask(session="0"))
    assert affinity.in_session(ask(session="1"))
    assert np.isfinite(affinity.cached(ask(session="1"), 100.0)).all()
