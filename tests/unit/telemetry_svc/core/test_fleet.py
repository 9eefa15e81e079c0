"""The fleet with a manual clock, and the law of watchers."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from telemetry_svc.core.fleet import Fleet, Health, Limits, News

LIMITS = Limits(silent_after_s=2.0, gone_after_s=60.0)


def health_of(fleet: Fleet[int]) -> dict[str, Health]:
    return {entry.name: entry.health for entry in fleet.entries}


def take(
    fleet: Fleet[int],
    name: str = "a",
    *,
    seq: int = 1,
    stream: int = 1,
    now_s: float = 0.0,
    health: Health = Health.SERVING,
    held_s: float | None = None,
) -> bool:
    """Report *name*; the report is its own seq."""
    return fleet.take(name, seq, stream=stream, seq=seq, health=health, now_s=now_s, held_s=held_s)


def test_a_replica_is_what_it_says() -> None:
    """While it reports, its own words are its health."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, "a")
    take(fleet, "b", health=Health.DRAINING)
    take(fleet, "c", health=Health.DEAD)

    assert health_of(fleet) == {"a": Health.SERVING, "b": Health.DRAINING, "c": Health.DEAD}


def test_silence_begins_after_its_limit_and_ends_with_a_report() -> None:
    """Exactly at the limit a replica still counts; later it is silent until heard."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, now_s=10.0)

    assert not fleet.sweep(12.0)
    assert fleet.sweep(12.1)
    assert health_of(fleet) == {"a": Health.SILENT}
    assert not fleet.sweep(12.2)
    take(fleet, seq=2, now_s=13.0)
    assert health_of(fleet) == {"a": Health.SERVING}


def test_a_replica_silent_for_long_is_gone() -> None:
    """It leaves the fleet, and watchers are told its name."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, now_s=0.0)
    seen = fleet.news(None).change

    fleet.sweep(60.1)

    assert fleet.entries == ()
    assert fleet.news(seen).removed == ("a",)


def test_a_report_holds_while_its_stream_is_open() -> None:
    """An agent that promised to tell of changes is not silent; its figures do not age."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, "a", held_s=0.1)
    take(fleet, "b")
    fleet.sweep(10.0)

    assert health_of(fleet) == {"a": Health.SERVING, "b": Health.SILENT}
    assert {e.name: e.age_s(10.0) for e in fleet.entries} == {"a": 0.1, "b": 10.0}
    assert fleet.entries[0].age_s(0.05) == 0.05


def test_what_a_broken_stream_held_ages_from_its_last_sign_of_life() -> None:
    """Watchers are told, and silence comes as soon as that was long enough ago."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, "a", stream=1, held_s=0.1)
    take(fleet, "b", stream=2, held_s=0.1)
    seen = fleet.news(None).change

    assert fleet.lost(1, alive_s=9.0)
    assert [(e.name, e.held_s, e.age_s(10.0)) for e in fleet.news(seen).entries] == [
        ("a", None, 1.0)
    ]
    assert not fleet.sweep(11.0)
    fleet.sweep(11.1)
    assert health_of(fleet) == {"a": Health.SILENT, "b": Health.SERVING}


def test_a_stream_that_held_nothing_is_no_loss() -> None:
    """Nor is the old stream of an agent that started again, nor a last sign before a report."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, "a", stream=1, held_s=0.1)
    take(fleet, "a", stream=2, held_s=0.1, now_s=5.0)

    assert not fleet.lost(1, alive_s=4.0)
    assert fleet.lost(2, alive_s=4.0)
    assert fleet.entries[0].age_s(6.0) == 1.0


def test_an_open_stream_without_a_sign_of_life_holds_nothing() -> None:
    """Its agent hangs, whatever its connection says; the next report is believed again."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, held_s=0.1)

    assert not fleet.sweep(LIMITS.held_for_s)
    assert fleet.sweep(LIMITS.held_for_s + 0.1)
    assert (fleet.entries[0].health, fleet.entries[0].held_s) == (Health.SILENT, None)
    take(fleet, seq=2, now_s=20.0, held_s=0.1)
    assert fleet.entries[0].age_s(30.0) == 0.1


def test_older_and_repeated_reports_are_dropped() -> None:
    """Within a stream, only ascending numbers count."""
    fleet: Fleet[int] = Fleet(LIMITS)

    assert take(fleet, seq=5)
    assert not take(fleet, seq=5, now_s=1.0)
    assert not take(fleet, seq=4, now_s=1.0)
    assert fleet.entries[0].received_s == 0.0


def test_a_restarted_agent_counts_again() -> None:
    """Its new stream wins with whatever number, and the old one is late from then on."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, seq=500, stream=1)

    assert take(fleet, seq=1, stream=2)
    assert not take(fleet, seq=501, stream=1)


def test_news_are_only_what_changed() -> None:
    """A watcher hears of each replica once, however often it reported since."""
    fleet: Fleet[int] = Fleet(LIMITS)
    take(fleet, "a")
    take(fleet, "b")
    seen = fleet.news(None).change
    for seq in range(2, 10):
        take(fleet, "b", seq=seq)

    news = fleet.news(seen)

    assert not news.complete
    assert [(entry.name, entry.report) for entry in news.entries] == [("b", 9)]


def test_who_is_far_behind_gets_everything() -> None:
    """Past the limit a snapshot comes instead of a delta."""
    fleet: Fleet[int] = Fleet(Limits(silent_after_s=2, gone_after_s=60, max_behind=3))
    take(fleet, "a")
    seen = fleet.news(None).change
    for seq in range(1, 4):
        take(fleet, "b", seq=seq)
    assert not fleet.news(seen).complete
    take(fleet, "b", seq=4)

    assert fleet.news(seen).complete


def test_a_fleet_has_a_bound() -> None:
    """The fleet says when it is full."""
    fleet: Fleet[int] = Fleet(Limits(silent_after_s=2, gone_after_s=60, max_replicas=2))
    take(fleet, "a")
    assert not fleet.full
    take(fleet, "b")

    assert fleet.full


def apply(view: Mapping[str, tuple[int, Health]], news: News[int]) -> dict[str, tuple[int, Health]]:
    """Do what a watcher does."""
    kept = {} if news.complete else {k: v for k, v in view.items() if k not in news.removed}
    return kept | {entry.name: (entry.report, entry.health) for entry in news.entries}


class Watching(RuleBasedStateMachine):
    """Any fleet life, with a watcher that looks whenever it likes."""

    def __init__(self) -> None:
        super().__init__()
        limits = Limits(silent_after_s=2.0, gone_after_s=5.0, max_behind=6)
        self.fleet: Fleet[int] = Fleet(limits)
        self.now_s, self.seq = 0.0, 0
        self.seen: int | None = None
        self.view: dict[str, tuple[int, Health]] = {}

    @rule(name=st.sampled_from("abcd"), stream=st.integers(1, 3), health=st.sampled_from(Health))
    def report(self, name: str, stream: int, health: Health) -> None:
        """One replica reports."""
        self.seq += 1
        take(self.fleet, name, seq=self.seq, stream=stream, now_s=self.now_s, health=health)

    @rule(passed_s=st.floats(0.0, 6.0))
    def pass_time(self, passed_s: float) -> None:
        """Time passes and the timer fires."""
        self.now_s += passed_s
        self.fleet.sweep(self.now_s)

    @rule()
    def look(self) -> None:
        """The watcher takes the news."""
        news = self.fleet.news(self.seen)
        assert self.seen is None or news.change >= self.seen
        self.view, self.seen = apply(self.view, news), news.change

    @precondition(lambda self: self.seen == self.fleet.change)
    @invariant()
    def knows_the_fleet(self) -> None:
        """Who has seen the last change knows what a fresh snapshot says."""
        assert self.view == apply({}, self.fleet.news(None))

    @invariant()
    def would_know_the_fleet(self) -> None:
        """Who takes the news now, after whatever gap, knows it too."""
        news = self.fleet.news(self.seen)
        assert apply(self.view, news) == apply({}, self.fleet.news(None))
        assert not {entry.name for entry in news.entries} & set(news.removed)


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=50, stateful_step_count=30)


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_every_change_has_its_own_ascending_number(names: list[str]) -> None:
    """Entries are ordered by their last change, and no two share one."""
    fleet: Fleet[int] = Fleet(LIMITS)
    for seq, name in enumerate(names, start=1):
        take(fleet, name, seq=seq)

    changes = [entry.change for entry in fleet.entries]

    assert changes == sorted(set(changes))
    assert fleet.change == len(names)
