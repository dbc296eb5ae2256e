"""Verifies answers that are numbers or formulas with the package math-verify."""
