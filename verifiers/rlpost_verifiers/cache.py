"""A bounded memory of verdicts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from rlpost.errors import UserError
from rlpost.types import Verdict


class VerdictCache:
    """The most recently used verdicts by content key; safe to share between threads.

    Undecided verdicts are never kept: they say something about the verifier at that moment, not about the answer.

    Args:
        capacity: number of verdicts kept; 0 keeps none.

    Raises:
        UserError: for a negative capacity.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise UserError(f"cache_size is {capacity}; give 0 for no cache, or the number of verdicts to keep")
        self._capacity = capacity
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Verdict | None:
        """The verdict kept under ``key``, marked as cached and as having cost nothing."""
        with self._lock:
            verdict = self._verdicts.get(key)
            if verdict is None:
                return None
            self._verdicts.move_to_end(key)
        return as_cached(verdict)

    def put(self, key: str, verdict: Verdict) -> None:
        """Keep ``verdict`` unless it is undecided; the least recently used one makes room."""
        if verdict.outcome == "undecided":
            return
        with self._lock:
            self._verdicts[key] = verdict
            self._verdicts.move_to_end(key)
            while len(self._verdicts) > self._capacity:
                self._verdicts.popitem(last=False)

    def __len__(self) -> int:
        return len(self._verdicts)


def as_cached(verdict: Verdict) -> Verdict:
    """The same verdict for an equal question, which cost no time."""
    return replace(verdict, cached=True, seconds=0.0, cpu_seconds=0.0)
