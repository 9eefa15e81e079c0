"""What this process counts, for Prometheus."""

from prometheus_client import Counter, Histogram

from services.kit.metrics import SECONDS

TEXTS = Counter("zeta_embedding_texts", "Texts embedded or profiled.", ("rpc", "cached"))
TOKENS = Counter("zeta_embedding_tokens", "Tokens that ran on the device, special ones included.")
BATCH_TEXTS = Histogram(
    "zeta_embedding_batch_texts", "Texts of one batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
DEVICE_SECONDS = Histogram(
    "zeta_embedding_device_seconds", "Time of one batch on the device.", buckets=SECONDS
)
