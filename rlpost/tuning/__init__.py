"""Which parameters may change, and in what form what changed is published."""
