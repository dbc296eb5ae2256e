"""Propositions with proofs, made by a prover: formulas, terms, notation."""
