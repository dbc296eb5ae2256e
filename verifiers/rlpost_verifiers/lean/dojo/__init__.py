"""LeanDojo: its benchmark and traced repositories as data sources, its tactic-level environment on any backend."""
