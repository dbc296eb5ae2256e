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


class Halves:
    """A reward stage that pays for the two halves of an answer by themselves."""

    needs: tuple[str, ...] = ()

    def __call__(self, group):
        from rlpost.types import SpanReward

        found = []
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True):
            turn = trajectory.turns[0]
            middle = (turn.start + turn.stop) // 2
            parts = [(turn.start, middle), (middle, turn.stop)]
            values = [float(len(set(trajectory.token_ids[a:b].tolist()))) for a, b in parts]
            spans = [SpanReward(*part, value, i) for i, (part, value) in enumerate(zip(parts, values, strict=True))]
            found.append(None if reward is None else (*reward, *spans))
        return found


def begins_early(text: str, columns: dict) -> bool:
    """Whether an answer begins with a letter before M: of a list of films, some do."""
    return text[:1] < "M"
