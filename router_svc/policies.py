"""The policies in force, by name. Changes last until the restart; the configuration stays."""

from collections.abc import Iterable, Mapping
from hashlib import sha256

from router_svc.core.types import Policy
from services.kit.config import Policy as Settings
from services.kit.errors import StaleEtagError, invalid


class Policies:
    """Named policies with an etag. Mutable, one owner."""

    def __init__(self, settings: Mapping[str, Settings], default: str) -> None:
        self._named = {name: configured(name, each) for name, each in settings.items()}
        self.default = default

    def all(self) -> list[Policy]:
        """Every policy, by name."""
        return [self._named[name] for name in sorted(self._named)]

    def named(self, name: str) -> Policy:
        """Return a policy, the default for an empty name. Raises InvalidRequestError."""
        policy = self._named.get(name or self.default)
        if policy is None:
            known = ", ".join(sorted(self._named))
            raise invalid("preference.policy", f"no policy {name!r}; there are: {known}")
        return policy

    def etag(self) -> str:
        """Name the present state."""
        return sha256(repr((self.default, self.all())).encode()).hexdigest()[:16]

    def follow(self, policies: Iterable[Policy], default: str) -> None:
        """Put in force what another has in force."""
        self._named = {policy.name: policy for policy in policies}
        self.default = default

    def update(self, policy: Policy, *, etag: str, make_default: bool) -> None:
        """Put *policy* in force. Raises StaleEtagError unless *etag* is empty or the present."""
        if etag and etag != self.etag():
            raise StaleEtagError(f"the etag {etag!r} is not the current one, {self.etag()!r}")
        self._named[policy.name] = policy
        if make_default:
            self.default = policy.name


def configured(name: str, settings: Settings) -> Policy:
    """Return a policy as the configuration has it."""
    return Policy(
        name=name,
        latency_weight_per_s=settings.latency_weight_per_s,
        cost_weight_per_usd=settings.cost_weight_per_usd,
        explore_ratio=settings.explore_ratio,
        deadline_confidence=settings.deadline_confidence,
        downgrade_ratio=settings.downgrade_ratio,
        max_calls=settings.max_calls,
        balancer=settings.balancer,
        plans=frozenset(settings.plans),
        forecast=settings.forecast,
    )
