"""Environments that Lean answers in."""
