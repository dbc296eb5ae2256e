"""Optimizers, by name."""
