"""Profiles in."""

import math

import numpy as np
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb

from router_svc.core.features import TASKS, Features, lexical
from router_svc.core.pieces import pieces
from router_svc.wire.values import (
    task_index,
)


def features_of(profile: embedding_pb.Profile, encoder: str, text: str) -> Features:
    """Read a profile of *text*. Raises ValueError where it is not one."""
    tasks = np.zeros(len(TASKS))
    for share in profile.tasks:
        if (index := task_index(share.kind)) is not None:
            tasks[index] = share.probability
    if not 0.0 < tasks.sum() < math.inf:
        raise ValueError(f"task shares {tasks.tolist()} are no probabilities")
    return Features(
        embedding=np.array(profile.embedding.values, dtype=np.float64),
        tasks=tasks / tasks.sum(),
        difficulty=min(max(profile.difficulty, 0.0), 1.0),
        expected_output_tokens=max(profile.expected_output_tokens, 1.0),
        prompt_tokens=max(int(profile.prompt_tokens), 1),
        lexical=lexical(text),
        pieces=pieces(text),
        source=encoder,
    )
