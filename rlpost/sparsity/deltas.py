"""The changes of a model's tensors in training, as metrics and as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlpost.types import TensorDelta


def summary(deltas: Mapping[str, TensorDelta]) -> dict[str, float]:
    """Metrics over all tensors, without the family's prefix; the angle is the mean over tensors weighted by entries."""
    parts = deltas.values()
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


def document(deltas: Mapping[str, TensorDelta]) -> dict[str, Any]:
    """The figures of every tensor as plain data."""
    return {name: asdict(part) for name, part in deltas.items()}
