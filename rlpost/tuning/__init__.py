"""Which parameters may change, and the optimisers that change them."""
