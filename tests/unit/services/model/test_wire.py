"""Reading requests and writing answers."""

import pytest
from zeta.inference.v1 import inference_service_pb2 as inference

from services.model import wire
from services.model.engine.types import Sampling
from services.model.state import LatencySketch, TaskStats


def call(request: inference.GenerateRequest) -> wire.Call:
    """Read *request* as a server with a temperature of 0.5 would."""
    return wire.call(request, vocabulary=10, max_tokens=7, temperature=0.5, seed=99)


def test_what_is_not_said_is_the_models_default() -> None:
    """Zeros of the wire are not taken for settings."""
    read = call(inference.GenerateRequest(prompt="Hi"))
    assert read == wire.Call(
        sampling=Sampling(temperature=0.5, seed=99),
        max_tokens=7,
        stops=(),
        logprobs=False,
        top_logprobs=0,
        rank=wire.STANDARD_RANK,
        kind=inference.TASK_KIND_UNSPECIFIED,
        constraint=None,
    )


def test_zeros_that_are_said_are_settings() -> None:
    """Temperature 0 is greedy, seed 0 a seed, log-probabilities may be of the chosen alone."""
    read = call(
        inference.GenerateRequest(
            prompt="Hi",
            sampling=inference.SamplingParams(temperature=0, seed=0, min_p=0),
            logprobs=inference.LogprobParams(),
        )
    )
    assert read.sampling == Sampling()
    assert (read.logprobs, read.top_logprobs) == (True, 0)


def test_classes_rank_critical_standard_batch() -> None:
    """What is not said is standard."""
    ranks = [
        call(inference.GenerateRequest(prompt="Hi", priority=priority)).rank
        for priority in (
            inference.PRIORITY_CRITICAL,
            inference.PRIORITY_STANDARD,
            inference.PRIORITY_UNSPECIFIED,
            inference.PRIORITY_BATCH,
        )
    ]
    assert ranks[0] < ranks[1] == ranks[2] < ranks[3]


def test_a_kind_of_task_is_named_for_metrics() -> None:
    """Short and in lower case."""
    assert wire.task_kind(inference.TASK_KIND_CODE) == "code"
    assert wire.task_kind(inference.TASK_KIND_UNSPECIFIED) == "unspecified"


def test_sketches_are_written_sparse_and_ascending() -> None:
    """Buckets without a count do not travel."""
    stats = TaskStats(requests=3, ttft=LatencySketch())
    for duration_s in (1.0, 1e-6, 1.0):
        stats.ttft.observe(duration_s)
    written = wire.task_stats(inference.TASK_KIND_CODE, stats)
    assert list(written.ttft.counts) == [1, 2]
    assert list(written.ttft.buckets) == sorted(written.ttft.buckets)
    assert written.ttft.buckets[0] == 0
    assert written.ttft.sum.ToNanoseconds() / 1e9 == pytest.approx(2.000001)
