"""Reinforcement-learning post-training of language models that checks itself."""
