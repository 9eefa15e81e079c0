"""CUDA alone: memory, copies, moves and recorded work."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from services.model.backends.trt.memory import Layout

if TYPE_CHECKING:
    from services.model.backends.trt.card import Card

LAYOUT = Layout(caches=6, heads=3, head_dim=16, item_bytes=4, slots=5, tokens=64)


def test_fresh_memory_is_zero_and_aligned(card: "Card") -> None:
    """Whatever was there before."""
    address = card.allocate(1 << 20)
    assert address % 256 == 0
    found = card.pinned((1 << 18,), np.float32)
    found[:] = 1
    card.download(found, address)
    card.wait()
    assert not found.any()


def test_more_than_there_is_is_a_memory_error(card: "Card") -> None:
    """And the card works on."""
    with pytest.raises(MemoryError):
        card.allocate(1 << 50)
    test_fresh_memory_is_zero_and_aligned(card)


def test_a_slot_moves_whole_and_nothing_else_does(card: "Card") -> None:
    """One call copies some tokens of a slot in every cache and head."""
    caches = card.pinned((LAYOUT.caches, *LAYOUT.sizes(LAYOUT.slots)), np.float32)
    caches[...] = np.random.default_rng(0).normal(size=caches.shape)
    expected = caches.copy()
    expected[:, 3, :, :20] = expected[:, 1, :, :20]
    address = card.allocate(LAYOUT.size_bytes)
    card.upload(address, caches)
    card.move(LAYOUT.grid(address, 1), LAYOUT.grid(address, 3), LAYOUT.strips(20))
    card.download(caches, address)
    card.wait()
    np.testing.assert_array_equal(caches, expected)


def test_recorded_work_is_done_when_it_is_replayed(card: "Card") -> None:
    """With what is in pinned memory then."""
    source, target = card.pinned((1000,), np.float32), card.pinned((1000,), np.float32)
    address = card.allocate(source.nbytes)

    def work() -> None:
        card.upload(address, source)
        card.download(target, address)

    replay = card.recorded(work)
    card.wait()
    assert not target.any()
    for value in (3, 4):
        source[:] = value
        replay()
        card.wait()
        assert (target == value).all()
