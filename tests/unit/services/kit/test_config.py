"""One file, every mistake at once."""

from pathlib import Path

import pytest

from services.kit.config import addresses, dump, load, model_named
from services.kit.errors import ConfigError

ROOT = Path(__file__).parents[4]
MINIMAL = """
[[models]]
name = "a"
dir = "weights"
[[models.replicas]]
listen = "127.0.0.1:1"
"""
SHARED = """
[[devices]]
name = "gpu"
replicas = {replicas}
slots = {slots}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["pocket.toml", "h200.toml"])
def test_shipped_configurations_load(name: str) -> None:
    """What ships is right, and no address is used twice."""
    config = load(ROOT / "config" / name)

    assert len(config.models) == 3
    given = [a for a in addresses(config) if a]
    assert len(set(given)) == len(given)


def test_a_dumped_configuration_reads_back_equal(tmp_path: Path) -> None:
    """The supervisor writes what it resolved, and children read the same."""
    config = load(ROOT / "config" / "pocket.toml")

    assert load(written(tmp_path, dump(config).decode())) == config


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A fleet does not depend on where it is started from."""
    config = load(written(tmp_path, MINIMAL))

    assert Path(model_named(config, "a").dir) == (tmp_path / "weights").resolve()


def test_plans_are_kept_with_the_state_unless_said_otherwise(tmp_path: Path) -> None:
    """Of models on TensorRT; others have none."""
    state = f'[fleet]\nstate_dir = "{tmp_path}/state"\n'
    tensorrt = MINIMAL.replace('dir = "weights"', 'dir = "weights"\nruntime = "tensorrt"')
    elsewhere = tensorrt.replace("[[models.r", 'tensorrt = { plan_dir = "p" }\n[[models.r')
    kept = [load(written(tmp_path, state + t)).models[0] for t in (MINIMAL, tensorrt, elsewhere)]
    assert [m.tensorrt.plan_dir for m in kept] == ["", f"{tmp_path}/state/plans", f"{tmp_path}/p"]


def test_every_mistake_is_reported_with_its_path(tmp_path: Path) -> None:
    """One run shows all there is to mend."""
    text = """
x = 1
[fleet]
name = 3
[router]
retry_ratio = 7
typo = 1
[router.policies.a]
explore_ratio = 2
[[models]]
name = "A b"
[[models.replicas]]
listen = "nowhere"
"""
    with pytest.raises(ConfigError) as wrong:
        load(written(tmp_path, text))

    lines = str(wrong.value).splitlines()
    for path in (
        "x: unknown key",
        "fleet.name:",
        "router.retry_ratio:",
        "router.typo: unknown key",
        "router.policies.a.explore_ratio:",
        "models[0].name:",
        "models[0].dir: missing",
        "models[0].replicas[0].listen:",
    ):
        assert sum(path in line for line in lines) == 1, path
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("models = []", "at least one"),
        (MINIMAL + MINIMAL, "given 2 times"),
        (MINIMAL + "[router]\ndefault_policy = 'x'", "no policy 'x'; there are: balanced"),
        (MINIMAL + "[telemetry]\ngone_after_s = 1.0", "gone_after_s"),
        (
            MINIMAL.replace("dir", "requires_ticket = true\ndir"),
            r"models\[0\]\.requires_ticket: needs tickets\.keys",
        ),
        (MINIMAL + SHARED.format(replicas=["a-1"], slots=4), "no replica 'a-1'; there are: a-0"),
        (MINIMAL + SHARED.format(replicas=["a-0", "a-0"], slots=4), "named 2 times"),
        (
            MINIMAL + SHARED.format(replicas=["a-0"], slots=4) + "least_slots = 99",
            "only max_running",
        ),
        (MINIMAL + SHARED.format(replicas=["a-0"], slots=1) + "least_slots = 2", "fewer than"),
        ("= 1", "not TOML"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, text: str, mistake: str) -> None:
    """Well-formed is not enough."""
    with pytest.raises(ConfigError, match=mistake):
        load(written(tmp_path, text))


def test_the_keys_of_tickets_lie_beside_the_file(tmp_path: Path) -> None:
    """As every path inside it does; without one there are no tickets."""
    assert load(written(tmp_path, MINIMAL)).tickets.keys == ""
    with_keys = load(written(tmp_path, MINIMAL + '[tickets]\nkeys = "tickets.keys"'))
    assert with_keys.tickets.keys == str(tmp_path / "tickets.keys")


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    """No traceback for a mistyped path."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml")


def test_unknown_model_names_those_there_are() -> None:
    """The error shows the way out."""
    with pytest.raises(ConfigError, match="there are: general-4b, coder-7b, reasoner-14b"):
        model_named(load(ROOT / "config" / "pocket.toml"), "huge")
