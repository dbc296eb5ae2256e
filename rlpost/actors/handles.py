"""Handles of what the driver does not hold: references into Ray's object store, and what is made of several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import ray
from rlpost.trajectory import Receipt


@dataclass(frozen=True, slots=True)
class LogprobShares:
    """Handle of a group's log-probabilities, which the learner's ranks have computed by samples of a batch.

    Attributes:
        shares: a reference for each rank, to a mapping from the number of a sample to log-probabilities.
        members: receipts of the group's trajectories.
        numbers: for each trajectory the numbers of its samples, as (part, number).
    """

    shares: tuple[Any, ...]
    members: tuple[Receipt, ...]
    numbers: tuple[tuple[tuple[int, int], ...], ...]

    def resolve(self) -> tuple[np.ndarray, ...]:
        """``[L]`` log-probabilities of each trajectory, NaN where nothing was sampled."""
        known = _joined(self.shares)
        found: list[np.ndarray] = []
        for receipt, parts in zip(self.members, self.numbers, strict=True):
            whole = np.full(receipt.length, np.nan, np.float32)
            for part, number in parts:
                start, stop = receipt.sequences[part]
                whole[start:stop] = known[number]
            found.append(whole)
        return tuple(found)


@lru_cache(maxsize=1)  # all groups of a batch have the same shares
def _joined(shares: tuple[Any, ...]) -> dict[int, np.ndarray]:
    known: dict[int, np.ndarray] = {}
    for share in ray.get(list(shares)):
        known |= share
    return known


def fetch(handle: Any) -> Any:
    """What a handle stands for."""
    if isinstance(handle, LogprobShares):
        return handle.resolve()
    return ray.get(handle) if isinstance(handle, ray.ObjectRef) else handle
