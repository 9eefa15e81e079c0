"""Plans on disk."""

import threading
from pathlib import Path

import msgspec
import pytest

from services.kit.errors import ConfigError
from services.model.backends.trt import plans
from services.model.backends.trt.plans import Card, Key

CARD = Card(gpu="NVIDIA H200", capability="9.0", tensorrt="11.4.0.106", cuda=13)
KEY = Key(
    model="m" * 64, precision="bf16", builder=1, prefill=(1, 512, 64), decode=(16,),
    cache_tokens=8192, streaming=False, card=CARD,
)  # fmt: skip
PLAN = memoryview(bytes(range(256)) * 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A plan on disk."""
    plans.write(tmp_path / KEY.name, PLAN, CARD, KEY)
    return tmp_path / KEY.name


def test_what_is_written_is_found(path: Path) -> None:
    """The content comes back as it was, and nothing else is left behind."""
    found = plans.find(path.parent, KEY)
    assert found is not None
    assert (bytes(found.content), found.about, found.card) == (bytes(PLAN), KEY, CARD)
    assert list(path.parent.iterdir()) == [path]


def test_a_plan_longer_than_a_piece_is_hashed_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order matters, and its end does."""
    monkeypatch.setattr(plans, "_PIECE_BYTES", 1000)
    plans.write(tmp_path / "x", PLAN, CARD)
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:-2000] + content[-1000:] + content[-2000:-1000])
    with pytest.raises(ConfigError, match="cut off or changed"):
        plans.read(tmp_path / "x")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n" * 64}, {"precision": "fp16"}, {"builder": 2}, {"prefill": (1, 256, 64)},
        {"decode": (8,)}, {"cache_tokens": 4096}, {"streaming": True},
        {"card": msgspec.structs.replace(CARD, gpu="NVIDIA L4")},
        {"card": msgspec.structs.replace(CARD, capability="8.9")},
        {"card": msgspec.structs.replace(CARD, tensorrt="11.5")},
        {"card": msgspec.structs.replace(CARD, cuda=14)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_differs_needs_another_plan(path: Path, change: dict[str, object]) -> None:
    """Nothing that matters is missing from the name."""
    assert plans.find(path.parent, msgspec.structs.replace(KEY, **change)) is None


def test_a_file_cut_off_anywhere_is_refused(path: Path) -> None:
    """Also where the header ends early."""
    content = path.read_bytes()
    for length in (*range(0, 700, 7), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ConfigError, match="delete"):
            plans.find(path.parent, KEY)


def test_a_changed_byte_is_noticed_anywhere(path: Path) -> None:
    """In the header as in the plan."""
    content = path.read_bytes()
    for at in (0, 8, 9, 20, 300, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ConfigError, match="delete"):
            plans.find(path.parent, KEY)


def test_a_plan_for_another_card_is_refused_by_name(path: Path) -> None:
    """A file that somebody renamed says what it was built for."""
    card = msgspec.structs.replace(CARD, gpu="NVIDIA L4", capability="8.9")
    key = msgspec.structs.replace(KEY, card=card)
    path.rename(path.with_name(key.name))
    with pytest.raises(ConfigError, match=r"NVIDIA H200 \(9\.0\).*this is NVIDIA L4 \(8\.9\)"):
        plans.find(path.parent, key)
    assert list(plans.others(path.parent, key)) == [str(CARD)]


def test_a_file_that_every_user_may_write_is_refused(path: Path) -> None:
    """A plan is code."""
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="every user may write it"):
        plans.find(path.parent, KEY)


def test_a_folder_that_cannot_be_is_a_sentence(path: Path) -> None:
    """A file stands where the folder should be."""
    with pytest.raises(ConfigError, match="plan_dir"), plans.locked(path, KEY):
        pass
    with pytest.raises(ConfigError, match="plan_dir"):
        plans.write(path / "x", PLAN, CARD)


def test_the_second_builder_waits_for_the_first(tmp_path: Path) -> None:
    """Then it finds what the first one built."""
    order: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def first() -> None:
        with plans.locked(tmp_path, KEY):
            inside.set()
            done.wait(10)
            order.append("first")

    def second() -> None:
        inside.wait(10)
        done.set()
        with plans.locked(tmp_path, KEY):
            order.append("second")

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]
