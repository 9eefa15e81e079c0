"""Fitting a model on a card."""

import pytest

from services.kit.errors import ConfigError
from services.model.backends.trt import memory
from services.model.backends.trt.memory import Layout, Needs

GIB = 1 << 30


def needs(weights_gib: float, slots: int = 16, context_tokens: int = 8192) -> Needs:
    """Return what a 4B model takes: 36 layers of 8 heads of 128, in 16 bits."""
    layout = Layout(
        caches=72, heads=8, head_dim=128, item_bytes=2, slots=slots,
        tokens=memory.cache_tokens(context_tokens),
    )  # fmt: skip
    return Needs(
        weights_bytes=int(weights_gib * GIB),
        layout=layout,
        context_tokens=context_tokens,
        other_bytes=1 << 28,
    )


def test_a_model_that_fits_stays_on_the_card() -> None:
    """Weights, cache and a reserve."""
    assert not needs(7.5).streams(40 * GIB)


def test_a_model_larger_than_the_card_streams_its_weights() -> None:
    """The cache stays on the card; weights take what is left."""
    large = needs(50, slots=4)
    assert large.streams(40 * GIB)
    room = large.weights_room(40 * GIB)
    assert 30 * GIB < room < 40 * GIB - large.layout.size_bytes


def test_a_cache_that_does_not_fit_is_refused_with_what_to_lower() -> None:
    """The figures that it names fit."""
    with pytest.raises(ConfigError) as refused:
        needs(7.5).streams(20 * GIB)
    said = str(refused.value)
    assert "weights take 7.5 GiB" in said
    assert "the cache of 16 requests of 8192 tokens 18.0 GiB, 20.0 GiB are free" in said
    rows = int(said.split("max_running to ")[1].split(maxsplit=1)[0])
    tokens = int(said.split("context_tokens to ")[1].split(maxsplit=1)[0])
    assert not needs(7.5, slots=rows).streams(20 * GIB)
    assert not needs(7.5, context_tokens=tokens).streams(20 * GIB)
    with pytest.raises(ConfigError):
        needs(7.5, slots=rows + 1).streams(20 * GIB)


def test_where_nothing_fits_fewer_bits_are_left() -> None:
    """No figure is named that does not help."""
    with pytest.raises(ConfigError, match="free; import with fewer bits") as refused:
        needs(18.7).streams(20 * GIB)
    assert "lower" not in str(refused.value)


@pytest.mark.parametrize("slots", [1, 2, 15, 16, 17, 24, 100, 256])
def test_every_batch_has_a_size_that_is_run(slots: int) -> None:
    """Small ones exactly, none more than seven rows above, the last all slots."""
    sizes = memory.buckets(slots)
    assert sizes[-1] == slots
    assert list(sizes) == sorted(set(sizes))
    for count in range(1, slots + 1):
        size = next(s for s in sizes if s >= count)
        assert size - count <= (0 if count <= 16 else 7)


@pytest.mark.parametrize("tokens", [64, 320, 8192])
def test_a_step_looks_at_all_that_is_held_and_little_more(tokens: int) -> None:
    """Never less than there is, never more than twice or 256."""
    for longest in range(1, tokens + 1):
        seen = memory.seen_tokens(longest, tokens)
        assert longest <= seen <= min(tokens, max(256, 2 * longest))


def test_a_slot_has_room_for_the_context() -> None:
    """And for little more."""
    for context_tokens in (16, 63, 64, 65, 8192):
        assert context_tokens <= memory.cache_tokens(context_tokens) < context_tokens + 64
