"""The Ray-backed pools and learner, and the placement of their actors. Only this package imports Ray."""
