"""Propositional theorems with proofs found by a prover: formulas, terms, notation."""
