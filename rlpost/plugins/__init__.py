"""How a user's code gets in: names, source text, building, and one trial call before a run depends on it."""
