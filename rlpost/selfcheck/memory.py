"""Does an actor's memory keep growing?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlpost.errors import LeakError

_WARM_UP = 5
"""Steps at an actor's start that are ignored, while caches fill and allocators reserve their arenas."""

_LEAST_MB = 256.0
"""Growth in MiB that never ends a run, however small the actor was."""

_STEADY = 0.6
"""Share of steps that must grow: a leak grows in most steps, a bigger batch grows memory once."""


class MemoryWatch:
    """The actors' own memory over the last steps.

    Args:
        window: number of steps over which growth is measured.
    """

    def __init__(self, window: int):
        self.window = window
        self._seen: dict[str, list[float]] = {}

    def note(self, own_mb: Mapping[str, float]) -> None:
        """Add a step's figures, in MiB by actor."""
        for name, value in own_mb.items():
            self._seen[name] = [*self._seen.get(name, []), value][-(self.window + _WARM_UP) :]

    def forget(self, name: str) -> None:
        """Drop the figures of an actor that was replaced."""
        self._seen.pop(name, None)

    def check(self, limit: float) -> None:
        """Look for an actor that keeps growing.

        Args:
            limit: largest allowed growth over the window, as a share of the memory at its start.

        Raises:
            LeakError: for an actor that grew by more, in most steps; names the actor and what to do.
        """
        for name, values in self._seen.items():
            if len(values) < self.window + _WARM_UP:
                continue
            recent = values[_WARM_UP:]
            before, grown, steady = growth(recent)
            if grown > max(limit * before, _LEAST_MB) and steady > _STEADY:
                raise LeakError(
                    f"memory: {name} has grown by {grown:.0f} MiB over the last {self.window} steps (from {before:.0f} "
                    f"MiB, limit {limit:.0%}), in {steady:.0%} of them: something in it leaks; see what it keeps (a "
                    "reward or verifier of your own first), or set selfcheck.memory_growth=null if this is meant"
                )


def growth(values: Sequence[float]) -> tuple[float, float, float]:
    """Initial level, growth, and the share of steps that grew.

    Levels are medians of the first and the last fifth, so that a single spike does not count.

    >>> growth([100.0] * 5 + [200.0] * 5)
    (100.0, 100.0, 0.1111111111111111)
    """
    fifth = max(len(values) // 5, 1)
    before, after = float(np.median(values[:fifth])), float(np.median(values[-fifth:]))
    return before, after - before, float(np.mean(np.diff(np.asarray(values)) > 0))
