"""Handles of what the driver does not hold: references into Ray's object store, and what is made of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import ray
from rlpost.trajectory import Receipt


@dataclass(frozen=True, slots=True)
class Part:
    """Handle of one of several things that a reference stands for."""

    ref: Any
    number: int


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


class Fetcher:
    """Resolves handles; what a reference stands for is read once and kept as long as this object."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, handle: Any) -> Any:
        """What a handle stands for; a thing that is no handle is returned as it is."""
        if isinstance(handle, Part):
            return self(handle.ref)[handle.number]
        if isinstance(handle, LogprobShares):
            return self._logprobs(handle)
        if not isinstance(handle, ray.ObjectRef):
            return handle
        if handle not in self._known:
            self._known[handle] = ray.get(handle)
        return self._known[handle]

    def _logprobs(self, handle: LogprobShares) -> tuple[np.ndarray, ...]:
        """``[L]`` log-probabilities of each trajectory, NaN where nothing was sampled."""
        shares = [self(share) for share in handle.shares]
        found: list[np.ndarray] = []
        for receipt, parts in zip(handle.members, handle.numbers, strict=True):
            whole = np.full(receipt.length, np.nan, np.float32)
            for part, number in parts:
                start, stop = receipt.sequences[part]
                whole[start:stop] = next(share[number] for share in shares if number in share)
            found.append(whole)
        return tuple(found)


def fetch(handle: Any) -> Any:
    """What a single handle stands for."""
    return Fetcher()(handle)
