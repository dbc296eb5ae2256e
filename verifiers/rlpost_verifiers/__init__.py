"""Verifiers for rlpost: they verify what a model wrote and report what the verdict rests on."""
