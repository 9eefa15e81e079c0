"""The sidecar next to one model process: reads it and its machine, reports to telemetry."""
