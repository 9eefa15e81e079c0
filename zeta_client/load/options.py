"""Read the options of `zeta bench`. Every mistake is a ConfigError that says what was expected."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.kit.errors import ConfigError
from zeta_client.load import arrivals, trace
from zeta_client.load.arrivals import Arrival, Burst

KINDS: Final = ("code", "reasoning", "general")


def arrivals_of(
    rate: float, duration_s: float, burst: str, traces: Sequence[str], seed: int
) -> list[Arrival]:
    """Return when requests come. Raises ConfigError."""
    rng = np.random.default_rng(seed)
    if traces:
        if burst:
            raise ConfigError("--burst and --trace: give one of them")
        found = arrivals.replay([_trace(each) for each in traces], rate, duration_s, rng)
    elif burst:
        found = arrivals.bursts(rate, duration_s, _burst(burst), rng)
    else:
        found = arrivals.poisson(rate, duration_s, rng)
    if not found:
        raise ConfigError(f"no request comes in {duration_s:g} s; give a higher --rate")
    return found


def _trace(text: str) -> tuple[str, list[trace.Line]]:
    kind, found, file = text.partition("=")
    if found and kind in KINDS:
        return kind, trace.read(Path(file))
    return "", trace.read(Path(text))


def _burst(text: str) -> Burst:
    try:
        factor, every_s, for_s = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--burst {text}: expected FACTOR,EVERY_S,FOR_S such as 4,10,2") from None
    if not (0.0 < factor < np.inf and 0.0 < for_s <= every_s < np.inf):
        raise ConfigError(f"--burst {text}: FACTOR must be above 0, FOR_S in (0, EVERY_S]")
    return Burst(factor=factor, every_s=every_s, for_s=for_s)


def weights(option: str, text: str, known: Sequence[str]) -> dict[str, float]:
    """Read NAME=WEIGHT,… of *known* names, of any where there is none. Raises ConfigError."""
    found = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            found[name] = float(weight or 1.0)
        except ValueError:
            raise ConfigError(f"{option} {part}: {weight!r} is not a number") from None
        if name not in (known or {name} - {""}) or not 0.0 <= found[name] < np.inf:
            names = " or ".join(known) or "a name"
            raise ConfigError(f"{option} {part}: expected {names}, with a weight of at least 0")
    if sum(found.values()) <= 0.0:
        raise ConfigError(f"{option} {text}: the weights must not all be 0")
    return found
