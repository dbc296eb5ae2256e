"""Gold proofs and cheats: what a Lean backend must and must not accept before it may verify anything."""
