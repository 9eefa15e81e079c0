"""The cache."""

from services.embedding.lru import Lru


def test_the_least_recently_used_leaves() -> None:
    """Reading a value keeps it; the one nobody asked for makes room."""
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)

    assert [cache.get(key) for key in "abc"] == [1, None, 3]
