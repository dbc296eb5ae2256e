"""The user's own code: looked up by name, sent to actors as source, built, and tried once before a run uses it."""
