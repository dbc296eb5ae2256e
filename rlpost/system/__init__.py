"""Processes of this machine: children that end with their parent, and programs tried in a process of their own."""
