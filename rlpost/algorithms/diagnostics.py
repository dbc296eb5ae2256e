"""How far two sets of log-probabilities of the same tokens are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Mismatch:
    """|log p_a - log p_b| over tokens: mean and maximum in nats, and how many tokens were compared."""

    mean: float
    max: float
    tokens: int


def mismatch(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> Mismatch:
    """Compare the log-probabilities of the same completions under two implementations.

    Raises:
        ValueError: if the two differ in number or length of completions, or hold no token at all.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} completions against {len(second)}")
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if len(a) != len(b):
            raise ValueError(f"completion {i}: {len(a)} log-probabilities against {len(b)}")
    flat_a = np.concatenate([np.asarray(a, np.float64) for a in first]) if first else np.zeros(0)
    flat_b = np.concatenate([np.asarray(b, np.float64) for b in second]) if second else np.zeros(0)
    if flat_a.size == 0:
        raise ValueError("no tokens to compare")
    difference = np.abs(flat_a - flat_b)
    if not np.isfinite(difference).all():
        return Mismatch(float("inf"), float("inf"), int(difference.size))
    return Mismatch(float(difference.mean()), float(difference.max()), int(difference.size))
