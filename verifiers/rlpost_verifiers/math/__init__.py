"""Answers that are numbers or formulas, judged by the package math-verify."""
