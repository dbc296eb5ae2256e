"""What a look at a model in training finds: the records that travel from the learner to the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Moved:
    """A tensor's movement, or several tensors' together.

    Attributes:
        entries: of the tensor.
        stepped: entries whose cast differs from the version looked at before.
        changed: entries whose cast differs from the start.
        cancelled: entries whose cast was changed once and is as at the start.
        stored_stepped: entries whose published value differs from the version before.
        stored_changed: entries whose published value differs from the start.
        step_norm: of the difference to the version before.
        norm: of the difference to the start.
        angle: between the weights of the version before and now, radians; 0 for a tensor that is zero.
    """

    entries: int
    stepped: int
    changed: int
    cancelled: int
    stored_stepped: int
    stored_changed: int
    step_norm: float
    norm: float
    angle: float


def summary(moved: Mapping[str, Moved]) -> dict[str, float]:
    """Metrics of all tensors together, without the family's name; the angle is the mean over matrices by entries."""
    parts = moved.values()
    entries = sum(part.entries for part in parts)
    if not entries:
        return {}
    shares = ("stepped", "changed", "cancelled", "stored_stepped", "stored_changed")
    return {
        **{f"{name}_share": sum(getattr(part, name) for part in parts) / entries for name in shares},
        "step_norm": math.sqrt(sum(part.step_norm**2 for part in parts)),
        "norm": math.sqrt(sum(part.norm**2 for part in parts)),
        "angle": sum(part.angle * part.entries for part in parts) / entries,
    }


def document(moved: Mapping[str, Moved]) -> dict[str, Any]:
    """Every tensor's figures as plain data."""
    return {name: asdict(part) for name, part in moved.items()}
