"""The router: one decision for model, replica and ensemble, learned from outcomes."""
