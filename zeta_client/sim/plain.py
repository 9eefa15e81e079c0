"""A plain load balancer in simulated time."""

from collections.abc import Callable, Iterator, Mapping

from services.kit.config import FleetConfig
from zeta_client.load.blind import Blind
from zeta_client.load.ways import Way
from zeta_client.sim.decider import Ended, Question, Refused, Sent
from zeta_client.sim.server import Job


class Plain:
    """A plain load balancer, over all replicas or those of the model that the kind names."""

    def __init__(self, config: FleetConfig, way: Way, clock: Callable[[], float]) -> None:
        pairs = [(m, i) for m in config.models for i in range(len(m.replicas))]
        self._models = [model.name for model, _ in pairs]
        self._model_of = way.model_of or {}
        self._blind = Blind(self._models, [model.max_running for model, _ in pairs], way.balancer)
        self._clock = clock

    def begin(self, question: Question, failed: frozenset[int]) -> Sent | Refused:
        """Choose as the balancer does."""
        del failed
        i = self._blind.begin(self._clock(), self._model_of.get(question.kind, ""))
        return (
            Refused("NO_REPLICA") if i < 0 else Sent(replica=i, plan=f"single({self._models[i]})")
        )

    def settled(self) -> Iterator[tuple[int, Sent | Refused]]:
        """Nobody waits here."""
        return iter(())

    def first(self, sent: Sent) -> None:
        """Nothing to learn from a first token."""

    def end(self, sent: Sent, job: Job, *, ended: Ended) -> None:
        """Note how long it took."""
        del ended
        self._blind.end(sent.replica, job.began_s, self._clock())

    def healthy(self, replica: int, *, serving: bool) -> None:
        """Leave out who is down."""
        self._blind.able[replica] = serving

    def reported(self, replica: int, requests: int, prompt_tokens: float, most: int) -> None:
        """It reads no reports."""

    def look_ahead(self) -> Mapping[int, int]:
        """It foresees nothing."""
        return {}
