"""Ray, and only Ray."""
