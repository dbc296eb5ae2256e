"""What updates moved, and whether the model holds what the optimizer's masters say."""

from __future__ import annotations

from rlpost.errors import SelfCheckError
from rlpost.optim.movement import MovementSample
from rlpost.protocols import Applied, TrainEngine
from rlpost.selfcheck.canary import check_masters

COMPARED = 4
"""Parameters that are compared with their masters at a time."""
_LARGEST = 1 << 24
"""Entries; larger parameters, mostly tables of word vectors, are compared only where there are no others."""


class MovementCount:
    """Counts how many of the entries that an update had to move did; looking costs as much as hundreds of small
    operations, so one update of a batch is enough.

    Args:
        adamw: whether the optimizer is torch's AdamW, whose steps are compared with its formula.
    """

    def __init__(self, adamw: bool = False) -> None:
        self.adamw = adamw
        self.wanted = self.moved = 0

    def watch(self, engine: TrainEngine, rate: float) -> Applied:
        """Make an update and count; a skipped one counts nothing.

        Raises:
            SelfCheckError: if the optimizer does not own everything that is trained, or AdamW moved something otherwise
                than its formula says.
        """
        _check_owned(engine)
        sample = MovementSample(engine.owned())
        applied = engine.apply(rate)
        if applied.skipped:
            return applied
        wanted, moved = sample.moved(engine.owned())
        self.wanted += wanted
        self.moved += moved
        # an update that moves nothing is told by the canary, which knows what is published
        said = sample.adamw_error(engine.owned(), rate) if self.adamw and moved else None
        if said is not None:
            raise SelfCheckError(f"optimizer: {said}; the weights do not follow the gradient, do not train on")
        return applied

    def take(self, engine: TrainEngine) -> dict[str, float]:
        """The metric ``moved`` over all ranks since the last call; none if no entry had to move."""
        found = engine.sum_over_ranks({"wanted": float(self.wanted), "moved": float(self.moved)})
        self.wanted = self.moved = 0
        return {"moved": found["moved"] / found["wanted"]} if found["wanted"] else {}


def _check_owned(engine: TrainEngine) -> None:
    owned = engine.owned()
    if not all(one.collects for one in owned):
        return
    held, wanted = sum(one.values.numel() for one in owned), sum(p.numel() for _, p in engine.tuning.trained())
    if held < wanted:
        raise SelfCheckError(
            f"optimizer: it owns {held} of the {wanted} entries that are to be trained; the others never move, do not "
            "train on"
        )


def check_cleared(engine: TrainEngine) -> None:
    """Verify that nothing is left of an earlier update's gradients, before the first backward pass of one.

    Raises:
        SelfCheckError: if something is; it would be added to the next gradient.
    """
    left = [one.gradient for one in engine.owned()]
    if any(gradient is not None and bool(gradient.any()) for gradient in left):
        raise SelfCheckError(
            "optimizer: gradients of an earlier update are still there, and would be added to this one's; the engine "
            "does not clear them after an update, do not train on"
        )


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
