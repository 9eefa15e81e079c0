"""Zeta's services: the shared kit, the embedding service, the model service."""
