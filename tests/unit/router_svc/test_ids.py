"""Ids that begin with the time."""

import time
from uuid import RFC_4122, UUID

from router_svc.ids import new_id


def test_an_id_is_a_uuid_of_version_seven() -> None:
    """As RFC 9562 lays it out: the time in milliseconds, then what is drawn."""
    before_ms = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(200)]
    after_ms = time.time_ns() // 1_000_000
    for each in map(UUID, made):
        assert each.variant == RFC_4122
        assert each.version == 7
        assert before_ms <= each.int >> 80 <= after_ms
    assert [str(UUID(each)) for each in made] == made
    assert len({each[14:] for each in made}) == 200
