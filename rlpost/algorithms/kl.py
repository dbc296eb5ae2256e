"""Per-token estimates of KL(π_θ ‖ π_ref) from samples of π_θ (Schulman 2020, "Approximating KL divergence")."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlpost.algorithms.masks import check_shapes
from rlpost.algorithms.ratios import unmasked

KLKind = Literal["k1", "k2", "k3"]

MAX_LOG_DIFFERENCE = 10.0
"""k3 grows as exp(log π_ref - log π_θ): without a clamp, one token of vanishing π_θ would dominate the gradient."""


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kind: KLKind) -> Tensor:
    r"""With d = log π_ref - log π_θ: k1 = -d, k2 = d²/2, k3 = e^d - 1 - d.

    k1 and k3 are unbiased estimates of the divergence, k3 is never negative. As a *loss term* only k2's gradient is an
    unbiased estimate of the divergence's gradient; k3's (the field's default) estimates that of KL(π_ref ‖ π_θ), and
    k1's has expectation zero: use k1 for reporting. Configurations with k1 in the loss are refused. d is clamped to ±10
    as in verl.

    Args:
        logprobs: ``[B, T]`` log π_θ with gradient.
        ref_logprobs: ``[B, T]`` log π_ref.
        mask: ``[B, T]`` bool, trained tokens.
        kind: estimator, ``k1``, ``k2`` or ``k3``.

    Returns:
        ``[B, T]`` nats per token, 0 where masked.
    """
    check_shapes(mask, logprobs, ref_logprobs)
    difference = unmasked(ref_logprobs, mask) - unmasked(logprobs, mask)
    difference = difference.clamp(-MAX_LOG_DIFFERENCE, MAX_LOG_DIFFERENCE)
    if kind == "k1":
        return -difference
    if kind == "k2":
        return difference.square() / 2
    # expm1: e^d - 1 - d cancels in float32 for |d| < 3e-4, which is where training starts
    return (torch.expm1(difference) - difference).clamp(min=0.0)
