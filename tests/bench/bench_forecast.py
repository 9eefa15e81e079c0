"""How far forecasts are off on real traffic: `python -m tests.bench.bench_forecast TRACE.csv …`.

Traces as `zeta bench --trace` reads them, at their own speed and three times as fast.
"""

import sys
from pathlib import Path

import numpy as np

from router_svc.core.forecast import HORIZON_S, STEP_S, Forecast
from router_svc.core.types import Floats
from zeta_client.load import trace

SPEEDS = (1.0, 3.0)


def main() -> None:
    """Print mean absolute errors in requests per second."""
    print(f"mean of the next {HORIZON_S:g} s; naive: the last second goes on\n")
    print(f"{'trace':24}{'speed':>6}{'rate':>8}{'naive':>8}{'forecast':>10}{'ratio':>8}")
    for name in sys.argv[1:]:
        for speed in SPEEDS:
            at_s = np.array([line.at_s for line in trace.read(Path(name))]) / speed
            rates = np.bincount(((at_s - at_s[0]) / STEP_S).astype(int)) / STEP_S
            naive, made = errors(rates)
            ratio = made / naive
            print(
                f"{Path(name).stem:24}{speed:6.0f}{rates.mean():8.2f}{naive:8.2f}{made:10.2f}"
                f"{ratio:8.2f}"
            )


def errors(rates: Floats) -> tuple[float, float]:
    """Return the mean absolute error of the naive forecast and of ours over all of a trace."""
    forecast, steps, last = Forecast(1), round(HORIZON_S / STEP_S), round(1.0 / STEP_S)
    naive, made = [], []
    for i, rate in enumerate(rates.tolist()):
        forecast.observe(np.array([rate]))
        naive.append(float(rates[max(i + 1 - last, 0) : i + 1].mean()))
        made.append(float(forecast.rates()[0]))
    came = np.convolve(rates, np.full(steps, 1.0 / steps), mode="valid")[1:]
    found = [float(np.abs(np.array(each[: len(came)]) - came).mean()) for each in (naive, made)]
    return found[0], found[1]


if __name__ == "__main__":
    main()
