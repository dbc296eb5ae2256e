"""Sampling completions from a versioned policy."""
