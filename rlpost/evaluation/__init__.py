"""Measuring a policy on held-out prompts."""
