"""Training from configuration to model: the step's verbs, the session they act on, and the run around them."""
