"""Priced plans: what each is expected to achieve and to take, and what that is worth.

A column for each figure, which pricers fill plan by plan: there are dozens of plans per decision,
and what chooses among them looks along the columns. K = plans.
"""

from router_svc.core.clip import clipped


class Plans:
    """Plans so far. A plain class, which a compiler makes fast; nobody changes it once priced."""

    __slots__ = (
        "_gain",
        "_of_capacity",
        "_of_cost",
        "_of_latency",
        "_of_quality",
        "capacity",
        "cost_usd",
        "in_time",
        "latency_s",
        "places",
        "quality",
        "settings",
        "utility",
    )

    def __init__(self, rates: list[float]) -> None:
        """Start with none. *rates*: what a unit of each of the first four figures is worth."""
        self._of_quality, self._of_latency, self._of_cost, self._of_capacity = rates
        self._gain = 0.0
        self.quality: list[float] = []
        """(K,) Expected."""
        self.latency_s: list[float] = []
        """(K,) Expected."""
        self.cost_usd: list[float] = []
        """(K,) Expected."""
        self.capacity: list[float] = []
        """(K,) What each takes from other requests, in units of quality."""
        self.in_time: list[float] = []
        """(K,) Probability of finishing before the deadline."""
        self.places: list[tuple[int, ...]] = []
        """(K,) Who is asked, in order: numbers of candidates."""
        self.settings: list[float] = []
        """(K,) What a cascade accepts from, or the seconds after which a hedge asks its backup."""
        self.utility: list[float] = []
        """(K,) An answer that comes too late is worth nothing."""

    def gain(self, gain: float) -> None:
        """From now on, add to the quality of plans what their kind proved to be worth beside."""
        self._gain = gain

    def add(  # noqa: PLR0917 - keywords would take as long as the rest, dozens a decision
        self,
        quality: float,
        latency_s: float,
        cost_usd: float,
        capacity: float,
        in_time: float,
        places: tuple[int, ...],
        setting: float,
    ) -> None:
        """Add a plan."""
        if self._gain != 0.0:
            quality = clipped(quality + self._gain, 0.0, 1.0)
        worth = self._of_quality * quality * in_time + self._of_latency * latency_s
        self.utility.append(worth + self._of_cost * cost_usd + self._of_capacity * capacity)
        self.quality.append(quality)
        self.latency_s.append(latency_s)
        self.cost_usd.append(cost_usd)
        self.capacity.append(capacity)
        self.in_time.append(in_time)
        self.places.append(places)
        self.settings.append(setting)
