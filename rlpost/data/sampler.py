"""Which prompts a step uses: a function of step number and seed, so that resuming needs no sampler state."""

from __future__ import annotations

import numpy as np

_STREAM = 0x5A3B
"""Keeps the sampler's random stream apart from every other stream of the run's seed."""


def order(epoch: int, count: int, seed: int, shuffle: bool) -> list[int]:
    """The order of ``count`` rows in an epoch."""
    if not shuffle:
        return list(range(count))
    return np.random.default_rng([seed, _STREAM, epoch]).permutation(count).tolist()


def indices(step: int, per_step: int, count: int, seed: int, shuffle: bool = True) -> list[int]:
    """Rows of a step: the next ``per_step`` of an endless stream of shuffled epochs.

    Every row is used once before any is used again; a step may span two epochs.

    Args:
        step: number of the step, 0-based.
        per_step: number of rows per step.
        count: number of rows in the data set.
        seed: the run's seed.
        shuffle: draw a new order for each epoch; False: keep the order of the rows.

    Raises:
        ValueError: for an empty data set or a negative step.
    """
    if count < 1 or per_step < 1 or step < 0:
        raise ValueError(f"need step >= 0, per_step >= 1 and count >= 1, got {step}, {per_step}, {count}")
    first = step * per_step
    chosen: list[int] = []
    for epoch in range(first // count, (first + per_step - 1) // count + 1):
        rows = order(epoch, count, seed, shuffle)
        start = max(first - epoch * count, 0)
        stop = min(first + per_step - epoch * count, count)
        chosen.extend(rows[start:stop])
    return chosen
