"""Latency starts analytic, follows observations, and knows how unsure it is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_svc.core.latency import Latency, LatencyPrior, Quantiles
from router_svc.core.loads import ReplicaLoads, loads_of

PRIOR = LatencyPrior(
    overhead_s=0.01, prefill_s_per_token=0.001, step_s=0.004, step_s_per_running=0.001
)

QUANTILES = ["ttft_p50_s", "ttft_p90_s", "total_p50_s", "total_p90_s"]
QUANTILES += ["tpot_s", "wait_s", "total_sigma"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def latency() -> Latency:
    return Latency(["a", "b"], {"a": PRIOR})


def load(**given: float) -> ReplicaLoads:
    figures = {
        "running": 0.0,
        "waiting": 0.0,
        "waiting_prompt_tokens": 0.0,
        "remaining_tokens": 0.0,
        "max_running": 4.0,
        "age_s": 0.0,
        **given,
    }
    return loads_of(
        replica=np.zeros(1, dtype=np.int64),
        model=np.zeros(1, dtype=np.int64),
        **{k: np.array([v]) for k, v in figures.items()},
    )


def on(loads: ReplicaLoads, replica: int, model: int = 0) -> ReplicaLoads:
    of = np.array([replica]), np.array([model])
    return ReplicaLoads(*of, loads.figures, loads.now_s, loads.known_s)


def predicted(latency: Latency, loads: ReplicaLoads, output_tokens: float = 11) -> Quantiles:
    return latency.quantiles(latency.predict(loads, 20, np.array(output_tokens)), 0)


def arrays(quantiles: Quantiles) -> np.ndarray:
    return np.array([getattr(quantiles, name) for name in QUANTILES])


def observe(latency: Latency, loads: ReplicaLoads, ttft_s: float, total_s: float) -> None:
    latency.learn("a", loads, prompt_tokens=20, output_tokens=11, ttft_s=ttft_s, total_s=total_s)


def busy(rng: np.random.Generator) -> ReplicaLoads:
    requests = float(rng.integers(0, 12))
    return load(
        running=min(requests, 4.0),
        waiting=max(requests - 4.0, 0.0),
        waiting_prompt_tokens=float(rng.integers(0, 300)),
        remaining_tokens=float(rng.uniform(1, 30)),
    )


def test_an_idle_replica_answers_as_its_prior_says(latency: Latency) -> None:
    """Without load and outcomes the medians are the sum of the prior's parts."""
    guess = predicted(latency, load())

    assert guess.ttft_p50_s == pytest.approx(0.01 + 20 * 0.001)
    assert guess.tpot_s == pytest.approx(0.005)
    assert guess.total_p50_s == pytest.approx(0.03 + 10 * 0.005)


@pytest.mark.parametrize(
    "more",
    [
        {"running": 3.0},
        {"waiting_prompt_tokens": 100.0},
        {"running": 4.0, "waiting": 2.0, "remaining_tokens": 20.0},
    ],
)
def test_more_load_takes_longer(latency: Latency, more: dict[str, float]) -> None:
    """Each kind of load delays the first token and the end."""
    idle, loaded = predicted(latency, load()), predicted(latency, load(**more))

    assert loaded.ttft_p50_s > idle.ttft_p50_s
    assert loaded.total_p50_s > idle.total_p50_s


def test_learns_a_device_unlike_its_prior(rng: np.random.Generator) -> None:
    """After two hundred noisy answers under mixed load, medians are within 15 % of the truth."""
    device = Latency(
        ["a"],
        {
            "a": LatencyPrior(
                overhead_s=0.05,
                prefill_s_per_token=0.0001,
                step_s=0.001,
                step_s_per_running=0.002,
            )
        },
    )
    model = Latency(["a"])
    for _ in range(200):
        loads = busy(rng)
        true = predicted(device, loads)
        noise = np.exp(rng.normal(0.0, 0.1))
        observe(model, loads, true.ttft_p50_s * noise, true.total_p50_s * noise)

    errors = []
    for _ in range(50):
        loads = busy(rng)
        true, guess = predicted(device, loads, 30), predicted(model, loads, 30)
        errors.append(np.log(guess.total_p50_s / true.total_p50_s))
    assert np.abs(errors).max() < 0.15


def test_quantiles_cover_what_they_say(rng: np.random.Generator) -> None:
    """After learning, about nine of ten answers come before the 90 % quantile."""
    device, model, before = Latency(["a"], {"a": PRIOR}), Latency(["a"]), []
    for n in range(900):
        loads = busy(rng)
        true, guess = predicted(device, loads), predicted(model, loads)
        noise = np.exp(rng.normal(0.0, 0.4, size=2))
        first = true.ttft_p50_s * noise[0]
        total = first + 10 * true.tpot_s * noise[1]
        before.append(total <= guess.total_p90_s if n >= 300 else None)
        observe(model, loads, first, total)

    assert 0.84 < np.mean([b for b in before if b is not None]) < 0.96


@pytest.mark.parametrize("slow_ratio", [0.15, 0.3])
def test_quantiles_cover_what_is_not_log_normal(
    rng: np.random.Generator, slow_ratio: float
) -> None:
    """Times that are the same but for some that are eight times as long."""
    device, model, within = Latency(["a"], {"a": PRIOR}), Latency(["a"]), []
    true = predicted(device, load())
    for _ in range(1200):
        slow = 8.0 if rng.random() < slow_ratio else np.exp(rng.normal(0.0, 0.01))
        within.append(slow * true.total_p50_s <= predicted(model, load()).total_p90_s)
        observe(model, load(), slow * true.ttft_p50_s, slow * true.total_p50_s)

    assert 0.85 < np.mean(within[400:]) < 0.95


def test_quantiles_cover_that_said_with_less_known_of_the_load(rng: np.random.Generator) -> None:
    """What a decision foresees of an idle replica holds where others get there before it does."""
    device, model, within = Latency(["a"], {"a": PRIOR}), Latency(["a"]), []
    for _ in range(1200):
        said, met = predicted(model, load()), load(running=float(rng.integers(0, 4)))
        noise, true = np.exp(rng.normal(0.0, 0.2)), predicted(device, met)
        ttft_s, total_s = noise * true.ttft_p50_s, noise * true.total_p50_s
        p90_s = float(said.ttft_p90_s), float(said.total_p90_s)
        within.append((ttft_s <= p90_s[0], total_s <= p90_s[1]))
        model.learn(
            "a",
            met,
            prompt_tokens=20,
            output_tokens=11,
            ttft_s=ttft_s,
            total_s=total_s,
            said_p90_s=p90_s,
        )

    share = np.mean(within[400:], axis=0)
    assert (share > 0.85).all()
    assert (share < 0.95).all()


def test_a_wrong_prior_does_not_make_times_look_uncertain(rng: np.random.Generator) -> None:
    """Who takes ten times as long as assumed is soon known to, and not to be capable of anything.

    Sixteen calls are under way at once, so that answers come late for what is said of the next.
    """
    slow = replace(PRIOR, overhead_s=0.1, step_s=0.04, step_s_per_running=0.01)
    device, model, said = Latency(["a"], {"a": slow}), Latency(["a"], {"a": PRIOR}), []
    true = predicted(device, load(running=2.0))
    for _ in range(60):
        foreseen = predicted(model, load(running=2.0))
        said.append((float(foreseen.ttft_p90_s), float(foreseen.total_p90_s)))
        noise = np.exp(rng.normal(0.0, 0.2))
        model.learn(
            "a",
            load(running=2.0),
            prompt_tokens=20,
            output_tokens=11,
            ttft_s=noise * true.ttft_p50_s,
            total_s=noise * true.total_p50_s,
            said_p90_s=said[max(len(said) - 16, 0)],
        )

    foreseen = predicted(model, load(running=2.0))
    assert foreseen.total_p50_s == pytest.approx(true.total_p50_s, rel=0.2)
    assert foreseen.total_p90_s < 3.0 * foreseen.total_p50_s


def test_the_length_s_uncertainty_widens_the_spread() -> None:
    """Answers of unforeseen length make the total less certain than foreseen ones."""
    foreseen, unforeseen = Latency(["a"]), Latency(["a"])
    for tokens in (5, 200) * 30:
        for latency, expected in ((foreseen, tokens), (unforeseen, 30)):
            latency.learn(
                "a",
                load(),
                prompt_tokens=20,
                output_tokens=tokens,
                ttft_s=0.01,
                total_s=0.01 + 0.005 * (tokens - 1),
                expected_tokens=expected,
            )

    sure, unsure = predicted(foreseen, load()), predicted(unforeseen, load())
    assert unsure.total_sigma > 2.0 * sure.total_sigma


def test_reported_steps_move_the_step_time(latency: Latency) -> None:
    """A replica's own step times are followed even without answers."""
    for _ in range(300):
        latency.learn_step("a", 1.0, 0.02)

    assert predicted(latency, load()).tpot_s == pytest.approx(0.02, rel=0.05)


def test_old_reports_are_uncertain(latency: Latency) -> None:
    """The older the report, the wider the quantiles."""
    fresh, old = predicted(latency, load()), predicted(latency, load(age_s=5.0))

    assert old.total_p50_s == fresh.total_p50_s
    assert old.total_p90_s > fresh.total_p90_s


def test_a_slower_machine_is_told_from_its_model_s_others(rng: np.random.Generator) -> None:
    """Of two replicas one is three times as slow; one that never answered is in between."""
    device, model = Latency(["a"], {"a": PRIOR}), Latency(["a"], replicas=["a-0", "a-1", "a-2"])
    for n in range(200):
        loads = busy(rng)
        true, slower = predicted(device, loads), 3.0 if n % 2 else 1.0
        noise = slower * np.exp(rng.normal(0.0, 0.1))
        mine = on(loads, n % 2)
        observe(model, mine, true.ttft_p50_s * noise, true.total_p50_s * noise)

    base = predicted(device, load(running=2.0)).total_p50_s
    fast, slow, new = (
        predicted(model, on(load(running=2.0), i)).total_p50_s / base for i in range(3)
    )
    assert fast == pytest.approx(1.0, rel=0.15)
    assert slow == pytest.approx(3.0, rel=0.15)
    assert fast < new < slow


@pytest.mark.parametrize("wrong", [0.2, 5.0])
def test_a_wrong_prior_is_no_replica_s_own_pace(wrong: float) -> None:
    """While a model's times are being learned, whoever was asked is thought as fast as the rest."""
    model = Latency(["a"], {"a": PRIOR}, replicas=["a-0", "a-1"])
    asked, other = (on(load(), i) for i in range(2))
    for _ in range(4):
        times = predicted(model, asked)
        observe(model, asked, wrong * times.ttft_p50_s, wrong * times.total_p50_s)

    assert predicted(model, asked).total_p50_s == predicted(model, other).total_p50_s


def test_models_learn_apart(latency: Latency) -> None:
    """What one model's answers say leaves the other model alone."""
    other = on(load(), 1, model=1)
    before = arrays(predicted(latency, other))
    observe(latency, load(), 1.0, 2.0)

    np.testing.assert_array_equal(arrays(predicted(latency, other)), before)


def test_a_restart_changes_nothing(latency: Latency, rng: np.random.Generator) -> None:
    """State saved and restored predicts bit for bit the same; a new model starts at its prior."""
    for _ in range(20):
        observe(latency, busy(rng), 0.1, 0.3)
    again = Latency(["new", "a"], {"a": PRIOR, "new": PRIOR})
    again.restore(latency.to_arrays())
    shifted = on(load(), 1, model=1)

    np.testing.assert_array_equal(
        arrays(predicted(again, shifted)), arrays(predicted(latency, load()))
    )
    assert predicted(again, load()).tpot_s == pytest.approx(0.005)


def test_refuses_the_state_of_another_version(latency: Latency) -> None:
    """State of an unknown layout is refused, not guessed at."""
    with pytest.raises(ValueError, match="version 99"):
        latency.restore({**latency.to_arrays(), "version": np.array(99)})


@pytest.mark.parametrize(("ttft_s", "total_s"), [(-0.1, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_refuses_times_out_of_order(latency: Latency, ttft_s: float, total_s: float) -> None:
    """Times that cannot have been measured are refused."""
    with pytest.raises(ValueError, match="not in order"):
        observe(latency, load(), ttft_s, total_s)


@pytest.mark.parametrize(
    ("running", "step_s"), [(0.0, 0.1), (1.0, -0.1), (1.0, float("nan")), (float("inf"), 0.1)]
)
def test_refuses_steps_out_of_range(latency: Latency, running: float, step_s: float) -> None:
    """A step of nothing, or of a time that cannot be, is refused."""
    with pytest.raises(ValueError, match="out of range"):
        latency.learn_step("a", running, step_s)


times = st.floats(0.0, 1e4)
counts = st.floats(0.0, 1e6)


@settings(max_examples=60)
@given(st.lists(st.tuples(counts, counts, counts, times, times), max_size=10))
def test_predictions_are_positive_and_finite(
    seen: list[tuple[float, float, float, float, float]],
) -> None:
    """Whatever was observed, times are positive, finite and in order."""
    latency = Latency(["a"])
    for running, prompt, remaining, one, two in seen:
        loads = load(running=running, waiting_prompt_tokens=prompt, remaining_tokens=remaining)
        observe(latency, loads, min(one, two), max(one, two))

    guess = predicted(latency, load(running=3.0, age_s=60.0))
    assert np.isfinite(arrays(guess)).all()
    assert 0.0 < guess.ttft_p50_s <= guess.ttft_p90_s
    assert guess.ttft_p50_s <= guess.total_p50_s <= guess.total_p90_s


def test_what_is_learned_counts_from_the_next_request_on() -> None:
    """Whoever was asked before says the same as one who was told all at once, and asked before."""
    model, again, loads = (
        Latency(["a"]),
        Latency(["a"]),
        load(running=2.0, waiting_prompt_tokens=9.0),
    )
    for learn in (_answer, _step):
        before = arrays(predicted(model, loads))
        predicted(again, loads)
        learn(model, loads)
        again.restore(model.to_arrays())
        after = arrays(predicted(model, loads))
        assert after != pytest.approx(before)
        assert after == pytest.approx(arrays(predicted(again, loads)))


def _answer(model: Latency, loads: ReplicaLoads) -> None:
    observe(model, loads, 1.0, 3.0)


def _step(model: Latency, loads: ReplicaLoads) -> None:
    del loads
    model.learn_step("a", 2.0, 0.5)
