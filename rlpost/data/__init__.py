"""Prompts, chat templates, packing and the resumable sampler."""
