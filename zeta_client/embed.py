"""Embeddings tailored to the model that will be asked."""

import numpy as np
from numpy.typing import NDArray

from zeta_client.client import Client


def g_zeta_embed_text(
    text: str | list[str], model: str | None = None, *, client: Client | None = None
) -> NDArray[np.float32]:
    """Embed *text* as (D,), or a list of texts as (N, D), tailored to *model*.

    With a model the vectors pass through what was learned about it: closer together then means
    similar success on it. Without a *client* the router at Client's default target is asked.
    Raises UnavailableError where nothing answers, UnknownModelError for an unknown model.
    """
    texts = [text] if isinstance(text, str) else text
    if client is not None:
        rows = client.embed(texts, model or "")
    else:
        with Client() as own:
            rows = own.embed(texts, model or "")
    return rows[0] if isinstance(text, str) else rows
