"""What updates moved, and whether the model holds what the optimizer's masters say."""

from __future__ import annotations

from rlpost.optim.movement import MovementSample
from rlpost.protocols import Applied, TrainEngine
from rlpost.selfcheck.canary import check_masters

COMPARED = 4
"""Parameters that are compared with their masters at a time."""
_LARGEST = 1 << 24
"""Entries; larger parameters, mostly tables of word vectors, are compared only where there are no others."""


class MovementCount:
    """Counts how many of the entries that an update had to move did; looking costs as much as hundreds of small
    operations, so a batch's first update is enough.
    """

    def __init__(self) -> None:
        self.wanted = self.moved = 0

    def watch(self, engine: TrainEngine, rate: float) -> Applied:
        """Make an update and count; a skipped one counts nothing."""
        sample = MovementSample(engine.owned())
        applied = engine.apply(rate)
        if not applied.skipped:
            wanted, moved = sample.moved(engine.owned())
            self.wanted += wanted
            self.moved += moved
        return applied

    def take(self, engine: TrainEngine) -> dict[str, float]:
        """The metric ``moved`` over all ranks since the last call; none if no entry had to move."""
        found = engine.sum_over_ranks({"wanted": float(self.wanted), "moved": float(self.moved)})
        self.wanted = self.moved = 0
        return {"moved": found["moved"] / found["wanted"]} if found["wanted"] else {}


def compare_masters(engine: TrainEngine, turn: int) -> None:
    """Compare a few parameters with their rounded masters; all ranks take part.

    Args:
        engine: the engine, after an update.
        turn: number of the comparison, by which all parameters have their turn.

    Raises:
        SelfCheckError: if one differs.
    """
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in engine.tuning.trained()}
    names = [name for name, size in sizes.items() if size <= _LARGEST] or list(sizes)
    for number in range(min(COMPARED, len(names))):
        name = names[(turn * COMPARED + number) % len(names)]
        check_masters(name, engine.tuning.stored(name, engine.gathered), engine.master(name))
