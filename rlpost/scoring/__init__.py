"""Scoring: from completions to verdicts to span rewards."""
