"""Gold proofs and cheats: what a Lean must accept and must not, before it may judge anything."""
