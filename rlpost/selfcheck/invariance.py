"""Before the first update: is the learner's gradient independent of the layout, and is it correct?

The same few samples go through the learner in the run's layout, through the learner one at a time, and through plain
torch. A factor between two gradients tells the cause: 0.5 on two ranks is an average instead of a sum.
"""

from __future__ import annotations

import math

import numpy as np

from rlpost.errors import SelfCheckError
from rlpost.types import GradientFigures, GradientSketch

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15}
"""Largest relative difference of two gradients of the same samples. Measured on SmolLM2-135M: 7e-6 in
float32, 0.033 in bfloat16, where layouts round differently; 6e-3 on two layers in bfloat16."""
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15}
"""Largest difference of two losses, as a share of the loss or of 1, whichever is larger. Measured in bfloat16: 0.07,
where each answer is weighted by a product over its tokens, which gathers their rounding."""


def check(figures: GradientFigures, dtype: str) -> dict[str, float]:
    """Compare the learner with itself and with plain torch.

    Args:
        figures: losses and gradients of the first batch's samples.
        dtype: ``float32`` or ``bfloat16``.

    Returns:
        Metrics: ‖g - r‖ / ‖r‖ between two layouts of the same samples, and to plain torch if that was run.

    Raises:
        SelfCheckError: for the first pair of losses or gradients that differ by more than the tolerances.
    """
    metrics = {
        "invariance/micro_batching": _compare(
            figures.own, figures.single, "as this run lays them out", "one sample at a time", dtype, figures.samples,
            "this layout is not what the model computes: set learner.layout: padded and learner.logprob_chunk: null",
        )
    }  # fmt: skip
    if figures.plain is not None:
        metrics["invariance/reference"] = _compare(
            figures.own, figures.plain, "of the learner", "of plain torch", dtype, figures.samples,
            "the engine scales or loses gradients: set learner.zero_stage: 0 or learner.engine: torch, and compare the "
            "versions of torch and deepspeed with those of scripts/constraints.txt",
        )  # fmt: skip
    return metrics


def difference(found: GradientSketch, reference: GradientSketch) -> tuple[float, float, str]:
    r"""How far two gradients are apart.

    Returns:
        ‖g - r‖ / ‖r‖, the factor ⟨g, r⟩ / ⟨r, r⟩, and the tensor with the largest share of the difference. Two zero
        gradients are equal; a tensor that one side lacks is zero there.
    """
    apart = inner = own = square = 0.0
    worst, most = "", -1.0
    for name in sorted(found.gradient.keys() | reference.gradient.keys()):
        one = found.gradient[name] if name in found.gradient else np.zeros_like(reference.gradient[name])
        other = reference.gradient[name] if name in reference.gradient else np.zeros_like(one)
        g, r = one.astype(np.float64), other.astype(np.float64)
        here = float(np.sum((g - r) ** 2))
        apart, own = apart + here, own + float(g @ g)
        inner, square = inner + float(g @ r), square + float(r @ r)
        if not here <= most:
            worst, most = name, here
    if square == 0.0:
        return (0.0, 1.0, worst) if own == 0.0 else (math.inf, math.inf, worst)
    return math.sqrt(apart / square), inner / square, worst


def _compare(
    found: GradientSketch, reference: GradientSketch, this: str, that: str, dtype: str, samples: int, remedy: str
) -> float:
    relative, factor, worst = difference(found, reference)
    end = f"; {remedy}, or selfcheck.invariance: false to train regardless"
    if not relative <= TOLERANCE[dtype]:
        # the part that the factor does not explain: relative² = (1 - factor)² + residue²
        residue = math.sqrt(max(relative**2 - (1 - factor) ** 2, 0.0)) if math.isfinite(relative) else math.nan
        scaled = residue <= max(TOLERANCE[dtype], 0.05 * abs(1 - factor))
        what = f"is {factor:.4g} times that {that}" if scaled else f"is not that {that}, above all for {worst!r}"
        raise SelfCheckError(
            f"invariance: the gradient {this} {what} ({samples} samples, relative difference {relative:.3g}, limit "
            f"{TOLERANCE[dtype]:g}, factor {factor:.4g}){end}"
        )
    gap = abs(found.loss - reference.loss)
    if not gap <= LOSS_TOLERANCE[dtype] * max(1.0, abs(reference.loss)):
        raise SelfCheckError(
            f"invariance: the loss {this} is {found.loss:.6g}, and {reference.loss:.6g} {that} ({samples} samples, "
            f"gradients agree){end}"
        )
    return relative
