"""The learning rate of an update."""

from __future__ import annotations

import math
from typing import Literal


def position(step: int, update: int, updates: int, nominal: int) -> float:
    r"""Position in the schedule, in nominal updates: (step + update / updates) · nominal.

    Batches from which groups were left out make fewer updates than planned. A schedule that counted updates would end
    with the run half way down; by the share of the run that is done it ends where it should. A batch that makes all its
    updates has the positions step · nominal + 0, 1, 2, …, exactly.

    Args:
        step: number of the rollout batch, 0-based.
        update: number of the update within the batch, 0-based.
        updates: updates that the batch makes.
        nominal: updates of a batch from which nothing was left out.

    >>> [position(3, update, 2, 4) for update in range(2)], [position(3, update, 4, 4) for update in range(4)]
    ([12.0, 14.0], [12.0, 13.0, 14.0, 15.0])
    """
    return step * nominal + update * nominal / updates


def learning_rate(
    update: float, *, peak: float, warmup: int, total: int, kind: Literal["constant", "linear", "cosine"], floor: float
) -> float:
    r"""Linear warmup, then constant, linear or half-cosine decay.

    Args:
        update: 0-based `position` of the optimizer update.
        peak: highest learning rate.
        warmup: updates of the linear rise; update ``u`` of it has rate peak · (u + 1) / (warmup + 1), never 0.
        total: nominal updates of the whole run; after them the decayed rate stays at the floor.
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
