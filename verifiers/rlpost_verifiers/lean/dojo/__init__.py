"""LeanDojo: its benchmark and traced repositories as data, its tactic-level environment on any Lean here."""
