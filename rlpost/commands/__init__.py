"""The implementations of the command line's commands."""
