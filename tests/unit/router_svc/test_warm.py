"""A first start begins with what a table, or another router, taught."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from zeta.router.v1 import router_service_pb2 as router_pb

from router_svc import warm
from router_svc.core.quality import Quality
from router_svc.journal import Journal
from router_svc.learner import Learner, packed, priors_of
from services.kit.config import FleetConfig, Model
from services.kit.errors import ConfigError
from tests.contract.router_fakes import config_of, routed
from tests.unit.router_svc.fixtures import features, models

FLEET = tuple(msgspec.structs.replace(m, priors={"general": 0.6}) for m in models({"a": 1, "b": 1}))


def believed(learner: Learner) -> list[float]:
    """What is expected of each model."""
    return [float(q) for q in learner.predictors.quality.predict(features())[0]]


def state(
    path: Path, names: tuple[str, ...] = ("b", "x"), fleet: tuple[Model, ...] = FLEET
) -> Path:
    """Save what a table teaches in which b, listed first, is always right."""
    priors = priors_of(fleet)
    quality = Quality(names, priors)
    prompts = [replace(features(), difficulty=n / 40.0) for n in range(40)]
    quality.learn_table(prompts, np.tile([1.0, 0.0], (40, 1)))
    warm.write(path, quality, priors)
    return path


def test_a_table_teaches_a_new_router(tmp_path: Path) -> None:
    """Of the models that both know, wherever they are listed; others keep their prior."""
    learner = Learner(FLEET, 1000.0)
    warm.start(learner, state(tmp_path / "state"), priors_of(FLEET))
    assert believed(learner)[0] == pytest.approx(0.6)
    assert believed(learner)[1] > 0.8
    assert learner.dirty


async def test_a_journal_teaches_a_new_router(tmp_path: Path) -> None:
    """All that another router learned."""
    other = Learner(FLEET, 1000.0)
    other.predictors.quality.learn("a", features(), 0.0)
    journal = Journal(tmp_path / "other.sqlite3")
    data = packed(other.to_arrays())
    await journal.ask(lambda db: db.execute("INSERT INTO state VALUES ('learned', 1, ?)", (data,)))
    await journal.close()
    learner = Learner(FLEET, 1000.0)
    warm.start(learner, tmp_path / "other.sqlite3", priors_of(FLEET))
    assert believed(learner) == believed(other)


def test_a_wrong_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Missing, foreign, cut off, of other models, over other priors, or without anything."""
    good = state(tmp_path / "good")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:200])
    (tmp_path / "text").write_text("hello")
    (tmp_path / "foreign").write_bytes(packed({"x": np.zeros(1)}))
    with closing(sqlite3.connect(tmp_path / "empty")) as db:
        db.execute("CREATE TABLE state (name, time_s, data)")
    others = tuple(msgspec.structs.replace(m, priors={"general": 0.1}) for m in FLEET)
    for path, said in (
        (tmp_path / "none", "No such file"),
        (tmp_path / "cut", "damaged"),
        (tmp_path / "text", "router.warm_start"),
        (tmp_path / "foreign", "no state of learning"),
        (tmp_path / "empty", "without anything learned"),
        (state(tmp_path / "strange", ("x", "y")), "no model in common"),
        (state(tmp_path / "priors", fleet=others), "other models.priors"),
    ):
        with pytest.raises(ConfigError, match=said):
            warm.start(Learner(FLEET, 1000.0), path, priors_of(FLEET))


async def beliefs(config: FleetConfig) -> list[float]:
    """What a router that starts now believes of its model, in outcomes."""
    async with routed(config) as world:
        found = (await world.router.GetPolicy(router_pb.GetPolicyRequest())).beliefs
    return [b.outcomes for b in found]


def forget(folder: Path) -> None:
    """Delete the journal."""
    for left in folder.glob("router.sqlite3*"):
        left.unlink()


async def test_the_file_is_read_at_the_first_start_only(tmp_path: Path) -> None:
    """Once something is saved it may be gone; and where it is needed, a start needs it."""
    plain = config_of(tmp_path, [("b", ["127.0.0.1:1"])])
    file = state(tmp_path / "state", fleet=plain.models)
    router = msgspec.structs.replace(plain.router, warm_start=str(file))
    config = msgspec.structs.replace(plain, router=router)
    first = await beliefs(config)
    assert max(first) > 10.0
    file.unlink()
    assert await beliefs(config) == first
    forget(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        await beliefs(config)
