"""Reward functions over token spans."""
