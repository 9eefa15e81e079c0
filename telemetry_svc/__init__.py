"""The telemetry service: what every replica of the fleet does, collected and streamed."""

import services.kit as _before_grpc  # noqa: F401 - says why
