"""Supervised warm start."""
