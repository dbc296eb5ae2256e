"""The learning rate of an update."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    update: int, *, peak: float, warmup: int, total: int, kind: Literal["constant", "linear", "cosine"], floor: float
) -> float:
    r"""Linear warmup, then constant, linear or half-cosine decay.

    Args:
        update: 0-based number of the optimizer update.
        peak: highest learning rate.
        warmup: updates of the linear rise; update ``u`` of it has rate peak · (u + 1) / (warmup + 1), never 0.
        total: updates of the whole run; after them the decayed rate stays at the floor.
        kind: course of the rate after the warmup.
        floor: final rate of a decay, as a share of the peak.

    Returns:
        The learning rate of that update.
    """
    if update < warmup:
        return peak * (update + 1) / (warmup + 1)
    if kind == "constant":
        return peak
    progress = min((update - warmup) / max(total - warmup, 1), 1.0)
    left = 1.0 - progress if kind == "linear" else (1.0 + math.cos(math.pi * progress)) / 2
    return peak * (floor + (1.0 - floor) * left)
