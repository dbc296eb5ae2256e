"""Verifier functions that accept some answers of an untrained model, so that groups have contrast; and rewards."""

import os
import time


def names_a_hypothesis(text: str, columns: dict) -> bool:
    return " h1" in text or " h2" in text


def takes_its_time(text: str, columns: dict) -> bool:
    """The same, so slow that a test can kill an actor meanwhile."""
    time.sleep(0.04)
    return names_a_hypothesis(text, columns)


def cannot_tell(text: str, columns: dict) -> None:
    return None


_KEPT: list[bytearray] = []


def leaks(prompts: list, completions: list, **columns: list) -> list[float]:
    """A reward that leaks 16 MiB per call."""
    _KEPT.append(bytearray(os.urandom(2**20) * 16))
    return [float(" h1" in text) for text in completions]
