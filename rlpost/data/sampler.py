"""Which prompts come next: a function of their position and the seed, so that resuming needs no sampler state."""

from __future__ import annotations

import numpy as np

_STREAM = 0x5A3B
"""Keeps the sampler's random stream apart from every other stream of the run's seed."""


def order(epoch: int, count: int, seed: int, shuffle: bool) -> list[int]:
    """The order of ``count`` rows in an epoch."""
    if not shuffle:
        return list(range(count))
    return np.random.default_rng([seed, _STREAM, epoch]).permutation(count).tolist()


def rows(first: int, number: int, count: int, seed: int, shuffle: bool = True) -> list[int]:
    """The next rows of an endless stream of shuffled epochs.

    Every row is used once before any is used again; the rows may span two epochs and more.

    Args:
        first: position of the first row in the stream, 0-based.
        number: number of rows.
        count: number of rows in the data set.
        seed: the run's seed.
        shuffle: draw a new order for each epoch; False: keep the order of the rows.

    Raises:
        ValueError: for an empty data set or a negative position.
    """
    if count < 1 or number < 1 or first < 0:
        raise ValueError(f"need first >= 0, number >= 1 and count >= 1, got {first}, {number}, {count}")
    chosen: list[int] = []
    for epoch in range(first // count, (first + number - 1) // count + 1):
        places = order(epoch, count, seed, shuffle)
        start = max(first - epoch * count, 0)
        stop = min(first + number - epoch * count, count)
        chosen.extend(places[start:stop])
    return chosen
