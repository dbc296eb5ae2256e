"""What training changed between two sets of weights, next to what rounding and chance alone would have changed."""
