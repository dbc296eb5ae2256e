"""Which parameters are trained, and in what form their changes are published."""
