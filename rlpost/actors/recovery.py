"""Recovery of lost actors: they are counted and get a new placement; too many of them end the run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rlpost.actors import cluster
from rlpost.actors.placement import Kind, Placement, place_again
from rlpost.config.schema import ClusterSection
from rlpost.errors import ActorLostError, DeadlineError, PlacementError, RestartLimitError

LOST = (ActorLostError, DeadlineError)
"""Errors by which an actor counts as lost: it is gone, or it does not answer in time."""


class Supervisor:
    """Knows the placement of every actor, counts losses by kind, and finds places for replacements.

    Args:
        section: number of losses allowed per kind, and deadline for a replacement to start.
        placements: placements of all actors of the run.
        log: called with a line about each loss and replacement.
    """

    def __init__(self, section: ClusterSection, placements: Sequence[Placement], log: Callable[[str], None]):
        self.section, self.log = section, log
        self.placements = {placement.name: placement for placement in placements}
        self.lost: Counter[str] = Counter()
        self._replaced: list[str] = []
        self.closing = False
        self._lock = threading.Lock()

    def record_loss(self, kind: Kind, error: Exception) -> None:
        """Count a loss.

        Raises:
            RestartLimitError: if it is one more than ``cluster.restarts`` allows, or if the run is ending.
        """
        with self._lock:
            if self.closing:
                raise RestartLimitError(f"{kind}: not replaced, the run is ending ({error})") from None
            self.lost[kind] += 1
            count, limit = self.lost[kind], self.section.restarts
        if count > limit:
            raise RestartLimitError(
                f"{kind}: loss number {count} in this run, {limit} are made good (cluster.restarts); the last: {error}"
            ) from None
        self.log(f"{error}; replacing it (loss {count} of {limit} that are made good)")

    def mark_replaced(self, name: str) -> None:
        """Note that an actor was replaced."""
        with self._lock:
            self._replaced.append(name)

    def take_replaced(self) -> list[str]:
        """Names of the actors replaced since the last call."""
        with self._lock:
            found, self._replaced = self._replaced, []
            return found

    def move(self, placement: Placement) -> Placement:
        """A placement for a replacement, on the same node if that is alive; waits for a node until the deadline.

        Raises:
            PlacementError: if no node can hold it in time.
        """
        end, told = time.monotonic() + self.section.start_timeout_s, False
        while True:
            with self._lock:
                others = [other for other in self.placements.values() if other.name != placement.name]
                found = place_again(placement, others, cluster.nodes())
                if found is not None:
                    self.placements[placement.name] = found
                    return found
            if time.monotonic() > end:
                raise PlacementError(
                    f"{placement.name}: no node with cores and {placement.gpus:g} free GPUs came within "
                    f"{self.section.start_timeout_s:g} s"
                )
            if not told:
                told = True
                self.log(f"waiting for a node with cores and {placement.gpus:g} free GPUs for {placement.name}")
            time.sleep(1.0)
