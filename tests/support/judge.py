"""A judge that an untrained model pleases now and then, so that groups have contrast."""

import os
import time


def names_a_hypothesis(text: str, columns: dict) -> bool:
    return " h1" in text or " h2" in text


def takes_its_time(text: str, columns: dict) -> bool:
    """As above, so slowly that there is time to kill somebody meanwhile."""
    time.sleep(0.04)
    return names_a_hypothesis(text, columns)


def cannot_tell(text: str, columns: dict) -> None:
    return None


_KEPT: list[bytearray] = []


def leaks(prompts: list, completions: list, **columns: list) -> list[float]:
    """A reward that keeps what it has seen, and then some."""
    _KEPT.append(bytearray(os.urandom(2**20) * 16))
    return [float(" h1" in text) for text in completions]
