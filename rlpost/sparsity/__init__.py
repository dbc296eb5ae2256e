"""What training changed between two sets of weights, beside what rounding and chance alone would have changed."""
