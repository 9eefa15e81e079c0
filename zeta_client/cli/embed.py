"""`zeta embed`: texts to vectors."""

from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table
from zeta.embedding.v1.embedding_service_pb2 import EmbedRequest, EmbedResponse

from zeta_client import wire
from zeta_client.cli import shell


def embed(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="The texts")],
    *,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Through what was learned about this model")
    ] = "",
    encoder: Annotated[
        str, typer.Option(metavar="NAME", help="Who makes the vectors; default: the target's")
    ] = "",
    prompt_name: Annotated[
        str, typer.Option("--prompt", metavar="NAME", help='A prompt of the encoder, like "query"')
    ] = "",
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Embed texts; with several, show how alike they are."""
    reach = shell.reach(config, target)
    request = shell.checked(
        wire.embed_request, texts, model, encoder=encoder, prompt_name=prompt_name
    )
    said = shell.run(_embed(reach, request))
    rows = wire.vectors(said)
    if as_json:
        shell.emit(
            {
                "model": model,
                "encoder": said.encoder,
                "adapted": said.adapted,
                "dimensions": rows.shape[1],
                "embeddings": rows.tolist(),
            }
        )
        return
    shell.out().print(_table(texts, rows))
    if model:
        what = "adapted to" if said.adapted else "as they are: no adapter is known to help with"
        shell.out().print(f"vectors of {said.encoder}, {what} {model}")


async def _embed(reach: shell.Reach, request: EmbedRequest) -> EmbedResponse:
    async with reach() as client:
        return await client.embedded(request)


def _table(texts: list[str], rows: NDArray[np.float32]) -> Table:
    """Tabulate embeddings (N, D): their first values, and their cosine to the first text's."""
    norms = np.linalg.norm(rows, axis=1)
    cosines = rows @ rows[0] / np.maximum(norms * norms[0], 1e-12)
    table = Table("text", f"first 4 of {rows.shape[1]} values", "norm", "cosine to the first")
    for text, row, norm, cosine in zip(texts, rows, norms, cosines, strict=True):
        table.add_row(text, " ".join(f"{v:+.3f}" for v in row[:4]), f"{norm:.3f}", f"{cosine:.3f}")
    return table
