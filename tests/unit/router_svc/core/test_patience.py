"""How long a request waits for somebody who can answer it."""

from router_svc.core.patience import MOST_DEATHS, MOST_S, Patience


def test_all_waits_together_have_a_bound() -> None:
    """Counted from the first failure on."""
    patience = Patience()
    assert patience.left_s(5.0) == MOST_S
    patience.failed(10.0, fatal=False)
    patience.failed(30.0, fatal=False)
    assert patience.left_s(40.0) == MOST_S - 30.0
    assert patience.left_s(10.0 + 2 * MOST_S) == 0.0


def test_a_token_gives_all_patience_back() -> None:
    """However often an answer breaks, it goes on as long as it gets on."""
    patience = Patience()
    for _ in range(3 * MOST_DEATHS):
        patience.failed(10.0, fatal=True)
        patience.got_on()
    assert not patience.suspect
    assert patience.left_s(10.0 + 2 * MOST_S) == MOST_S


def test_who_ends_replica_after_replica_is_suspect() -> None:
    """Failures before a replica had the request do not count."""
    patience = Patience()
    for _ in range(MOST_DEATHS - 1):
        patience.failed(10.0, fatal=True)
    for _ in range(MOST_DEATHS):
        patience.failed(10.0, fatal=False)
    assert not patience.suspect
    patience.failed(10.0, fatal=True)
    assert patience.suspect
