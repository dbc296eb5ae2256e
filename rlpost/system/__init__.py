"""Processes on this machine: children that end with their parent, and smoke tests in separate processes."""
