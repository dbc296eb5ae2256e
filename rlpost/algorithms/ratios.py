"""Importance ratios between the current and the old policy: per token, per span, per sequence."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlpost.algorithms.masks import check_shapes, span_counts, span_sums, whole

Level = Literal["token", "span", "sequence"]

MAX_LOG_RATIO = 20.0
"""exp(20) = 5e8 is far outside every clip range and still finite in float32: a clamp here changes no clipped value and
prevents inf · 0 = NaN where the advantage is 0."""


def log_ratios(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, span_ids: Tensor, level: Level) -> Tensor:
    r"""Log of each token's importance ratio at the given level.

    * ``token``: log π_θ(y_t) - log π_old(y_t)
    * ``span``: the mean of that over the token's span, the ratio of geometric means (Rank-GRPO, Zhu et al. 2025)
    * ``sequence``: the mean over the completion (GSPO, Zheng et al. 2025, eq. 7)

    Args:
        logprobs: ``[B, T]`` log π_θ with gradient.
        old_logprobs: ``[B, T]`` log π_old.
        mask: ``[B, T]`` bool, trained tokens. Other positions are set to 0 first, so that a NaN there cannot leak.
        span_ids: ``[B, T]`` int64; only read for ``span``.
        level: ``token``, ``span`` or ``sequence``.

    Returns:
        ``[B, T]``; 0 where masked. Under ``span``, a trained token outside every span has ratio 1.
    """
    check_shapes(mask, logprobs, old_logprobs, span_ids)
    zero = torch.zeros((), dtype=logprobs.dtype, device=logprobs.device)
    difference = torch.where(mask, logprobs, zero) - torch.where(mask, old_logprobs, zero)
    if level != "token":
        ids = whole(mask) if level == "sequence" else span_ids
        difference = span_sums(difference, mask, ids) / span_counts(mask, ids).clamp(min=1)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def truncated_importance(learner_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    r"""w_t = min(π_learner(y_t) / π_engine(y_t), cap): corrects for tokens drawn by an engine that rounds differently.

    Truncated importance sampling (TIS; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"). It multiplies the loss and carries no gradient.

    Args:
        learner_logprobs: ``[B, T]`` log-probabilities of the sampling-time policy, recomputed by the learner.
        rollout_logprobs: ``[B, T]`` log-probabilities that the engine reported.
        mask: ``[B, T]`` bool, trained tokens.
        cap: largest weight, > 0, usually 2.

    Returns:
        ``[B, T]`` in (0, cap], 1 where masked.

    Raises:
        ValueError: for a cap that is not positive.
    """
    check_shapes(mask, learner_logprobs, rollout_logprobs)
    if cap <= 0:
        raise ValueError(f"importance cap {cap} must be positive")
    difference = torch.where(mask, learner_logprobs - rollout_logprobs, 0.0).detach()
    return torch.where(mask, difference.clamp(max=MAX_LOG_RATIO).exp().clamp(max=cap), 1.0)
