"""What no way of routing could exceed."""

import msgspec
import pytest

from zeta_client.load import ways
from zeta_client.load.send import OK
from zeta_client.sim.bound import most_right
from zeta_client.sim.draw import draw
from zeta_client.sim.scenario import Model, Scenario, fleet_of
from zeta_client.sim.server import Costs
from zeta_client.sim.world import World

LENGTHS = {"code": 20.0, "reasoning": 20.0, "general": 20.0}
COSTS = Costs(step_s=0.1)
ONE = Model(name="m", costs=COSTS, max_running=4, output_tokens=LENGTHS)  # type: ignore[arg-type] # literals
RIGHT = dict.fromkeys(LENGTHS, 1.0)
SURE = msgspec.structs.replace(ONE, quality=RIGHT)
ALIKE = Scenario(models=(SURE,), rate=10.0, duration_s=20.0, spread=0.0, deadline_s=4.0)


def test_where_all_are_alike_it_is_the_work_that_there_is_time_for() -> None:
    """Nineteen steps in batches of four: as many as fit between the first arrival and the end."""
    drawn = draw(ALIKE, 1)
    fits = (20.0 + 4.0) / (19 * 0.1 / 4)

    assert len(drawn) > 3 * fits
    assert most_right(ALIKE, drawn) == pytest.approx(fits, rel=0.05)


def test_without_a_hurry_it_is_what_somebody_answers_right() -> None:
    """No deadline, or little to do."""
    for scenario in (
        msgspec.structs.replace(ALIKE, deadline_s=None),
        msgspec.structs.replace(ALIKE, rate=0.5),
    ):
        drawn = draw(scenario, 1)
        assert most_right(scenario, drawn) == pytest.approx(len(drawn))


def test_nobody_is_in_time_where_the_answer_alone_takes_too_long() -> None:
    """However idle the fleet is."""
    hurried = msgspec.structs.replace(ALIKE, deadline_s=1.5)
    assert most_right(hurried, draw(hurried, 1)) == 0.0


@pytest.mark.parametrize("way", ["routed", "static:least_request"])
def test_no_way_exceeds_it(way: str) -> None:
    """Two models, each good at something, under more than they can do."""
    other = msgspec.structs.replace(ONE, name="n", quality={"code": 1.0}, replicas=2)
    both = msgspec.structs.replace(ALIKE, models=(SURE, other), warm_s=4.0, spread=0.4)
    drawn = draw(both, 2)
    results = World(both, ways.parsed(way, fleet_of(both)), drawn, 2).run()
    right = sum(r.status == OK and bool(r.right) for r in results)

    assert 0 < right <= most_right(both, drawn)
