"""A simulated replica takes exactly the time that its costs say."""

import pytest

from zeta_client.sim.server import Costs, Job, Server, fitted

COSTS = Costs(step_s=0.01, step_s_per_running=0.002, prefill_s_per_token=0.001, chunk_tokens=50)


def job(number: int, prompt: int = 20, output: int = 11) -> Job:
    """A request sent at 0."""
    return Job(number=number, prompt_tokens=prompt, output_tokens=output, began_s=0.0)


def run(server: Server) -> tuple[dict[int, float], dict[int, float]]:
    """Run to the end; return when each request had its first and its last token."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    while (now_s := server.next_s()) < float("inf"):
        fed, ended = server.fire(now_s)
        first |= {j.number: now_s for j in fed}
        last |= {j.number: now_s for j in ended}
    return first, last


def test_one_request_alone() -> None:
    """Prompt tokens at their price, then ten steps of one."""
    server = Server(COSTS, 4)
    server.add(job(1), 0.0)
    first, last = run(server)

    assert first[1] == pytest.approx(20 * 0.001)
    assert last[1] == pytest.approx(0.02 + 10 * 0.012)


def test_a_second_prompt_slows_the_first_answer() -> None:
    """While a prompt is fed, every step takes its chunk along; then both share the steps."""
    server = Server(COSTS, 4)
    server.add(job(1), 0.0)
    server.add(job(2), 0.0)
    first, last = run(server)

    assert first[2] == pytest.approx(0.02 + (0.012 + 0.02))
    assert last[1] == pytest.approx(0.052 + 9 * 0.014)
    assert last[2] == pytest.approx(last[1] + 0.012)


def test_only_so_many_run_at_once() -> None:
    """The third waits until a slot is free."""
    server = Server(COSTS, 2)
    for number in (1, 2, 3):
        server.add(job(number), 0.0)
    first, last = run(server)

    assert server.requests == 0
    assert first[3] > last[1]
    assert first[3] == pytest.approx(last[1] + 0.012 + 0.02)


def test_what_is_due_within_a_clocks_resolution_is_due() -> None:
    """However often a timer comes a nanosecond early, a prompt that costs nothing gets fed."""
    server = Server(Costs(step_s=0.12), 4)
    server.add(job(1), 1000.0)
    fed, ended = server.fire(server.next_s() - 1e-9)
    assert [each.number for each in fed] == [1]
    assert ended == []
    fed, ended = server.fire(server.next_s() - 1e-9)
    assert [each.number for each in ended] == [1]


def test_a_slower_machine_takes_longer_in_proportion() -> None:
    """Every time is multiplied."""
    fast, slow = Server(COSTS, 4), Server(COSTS, 4, slowdown=3.0)
    for server in (fast, slow):
        server.add(job(1, prompt=120), 0.0)

    assert run(slow)[1][1] == pytest.approx(3.0 * run(fast)[1][1])


def test_a_server_that_dies_loses_everything() -> None:
    """Who waited, who was fed and who ran; nothing of it happens any more."""
    server = Server(COSTS, 1)
    for number in (1, 2):
        server.add(job(number), 0.0)
    server.fire(server.next_s())
    server.add(job(3), 0.03)
    version = server.version

    assert [j.number for j in server.drop(0.04)] == [1, 2, 3]
    assert server.version != version
    assert server.requests == 0
    assert server.next_s() == float("inf")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_who_is_cancelled_frees_its_place(number: int) -> None:
    """Running, being fed or waiting: the others go on, as if it had never been there from then."""
    server = Server(COSTS, 2)
    jobs = {n: job(n) for n in (1, 2, 3)}
    for each in jobs.values():
        server.add(each, 0.0)
    server.fire(server.next_s())
    server.cancel(jobs[number], 0.03)

    assert server.requests == 2
    assert set(run(server)[1]) == {1, 2, 3} - {number}


def test_costs_are_fitted_to_speeds() -> None:
    """Speeds made of known costs give those costs back."""
    speeds = [(b, 1000.0, b / (0.01 + 0.002 * b)) for b in (1, 2, 4, 8)]
    costs = fitted(speeds)

    assert costs.step_s == pytest.approx(0.01)
    assert costs.step_s_per_running == pytest.approx(0.002)
    assert costs.prefill_s_per_token == pytest.approx(0.001)
