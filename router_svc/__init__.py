"""The router: one decision for model, replica and ensemble, learned from outcomes."""

import services.kit as _before_grpc  # noqa: F401 - says why
from router_svc import compiled

compiled.use()
