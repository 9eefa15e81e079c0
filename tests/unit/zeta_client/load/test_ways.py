"""What can be compared is named in words; what is unknown is refused with what there is."""

import pytest

from services.kit.config import load
from services.kit.errors import ConfigError
from zeta_client.cli.shell import default_config
from zeta_client.load.ways import parse_all, parsed

CONFIG = load(default_config())


def test_ways_are_read() -> None:
    """Policies, balancers, fixed models and none at all."""
    assert parsed("fast", CONFIG).policy == "fast"
    assert parsed("balanced:p2c", CONFIG).balancer == "p2c"
    assert parsed("all:peak_ewma", CONFIG).direct
    assert parsed("static:p2c", CONFIG).model_of == {
        "code": "coder-7b",
        "reasoning": "reasoner-14b",
        "general": "general-4b",
    }
    only = parsed("only:coder-7b", CONFIG).model_of
    assert only is not None
    assert set(only.values()) == {"coder-7b"}
    assert [w.name for w in parse_all(["fast", "fast"], CONFIG)] == ["fast"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("best", "there are: .*balanced"),
        ("balanced:fastest", "there are: .*p2c"),
        ("only:gpt", "there are: .*coder-7b"),
        ("all:x", "no balancer 'x'"),
        ("static:x", "no balancer 'x'"),
    ],
)
def test_unknown_ways_are_refused(text: str, expected: str) -> None:
    """The error says what there is."""
    with pytest.raises(ConfigError, match=expected):
        parsed(text, CONFIG)
