"""The telemetry service: what every replica of the fleet does, collected and streamed."""
