"""Embeddings on their way out."""

from collections.abc import Callable

import numpy as np

from router_svc.core.kernel import Halved
from router_svc.wire.values import EmbedResponse


def adapt(response: EmbedResponse, adapter: Callable[[Halved], tuple[Halved, bool]]) -> None:
    """Pass the vectors of *response* through *adapter*, unless an instance has done so before."""
    if response.adapted:
        return
    rows, adapted = adapter(np.array([e.values for e in response.embeddings], dtype=np.float32))
    if adapted:
        response.adapted = True
        for embedding, row in zip(response.embeddings, rows.tolist(), strict=True):
            embedding.values[:] = row
