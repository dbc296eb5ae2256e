"""Training from configuration to model: the verbs of a step, the session they act on, and the run around them."""
