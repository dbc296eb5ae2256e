"""From completions to verdicts to span rewards."""
