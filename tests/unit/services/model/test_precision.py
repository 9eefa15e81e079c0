"""What fewer bits cost a trained model; figures of 500 prompts are in docs/benchmarks.md."""

import pytest

from services.model.graph.dialects import DIALECTS, DialectName
from tests.bench.bench_precision import POCKET, compared

PROMPTS = 40


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.skipif(not (POCKET / "pocket-general").is_dir(), reason="no pocket models here")
def test_fewer_bits_choose_nearly_the_same_tokens(dialect: DialectName) -> None:
    """Halves and eight bits cost nothing to speak of, four bits little."""
    rows = {str(row["precision"]): row for row in compared("pocket-general", PROMPTS, [dialect])}
    fewest = {"fp32": 1.0, "fp16": 0.995, "bf16": 0.985, "int8": 0.975, "int4": 0.92}
    for precision, least in fewest.items():
        assert rows[precision]["top1_agreement"] >= least, precision  # type: ignore[operator]
        assert rows[precision]["perplexity"] <= 1.05 * rows["fp32"]["perplexity"]  # type: ignore[operator]
