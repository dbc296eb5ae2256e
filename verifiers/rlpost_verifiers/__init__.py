"""Verifiers for rlpost: they judge what a model wrote and say what the judgement rests on."""
