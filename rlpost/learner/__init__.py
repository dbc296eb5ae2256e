"""Owns the trained weights: log-probabilities, updates, checkpoints."""
