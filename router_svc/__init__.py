"""The router: one decision for model, replica and ensemble, learned from outcomes."""

from router_svc import compiled

compiled.use()
