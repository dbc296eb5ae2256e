"""Environments in which a policy talks with Lean over several turns."""
