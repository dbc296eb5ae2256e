"""Importance ratios of the current to the proximal policy, and weights of the proximal to the rollout policy.

The *rollout* policy sampled the tokens (the engine's log-probabilities). The *proximal* policy is the learner's at the
start of the step; clipping keeps the *current* one close to it. Rollout and proximal policy differ by rounding, and by
age where a sample is older than the step. Hilton et al. 2021, "Batch size-invariance for policy optimization", section
3 (decoupled PPO).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlpost.algorithms.masks import check_shapes, span_counts, span_sums, whole

Level = Literal["token", "span", "sequence"]
ImportanceKind = Literal["truncate", "mask"]
ImportanceLevel = Literal["token", "sequence"]

MAX_LOG_RATIO = 20.0
"""exp(20) = 5e8 is far outside every clip range and still finite in float32: a clamp here changes no clipped value and
prevents inf · 0 = NaN where the advantage is 0."""


def log_ratios(logprobs: Tensor, proximal_logprobs: Tensor, mask: Tensor, span_ids: Tensor, level: Level) -> Tensor:
    r"""Log of each token's importance ratio at the given level.

    * ``token``: log π_θ(y_t) - log π_prox(y_t)
    * ``span``: the mean of that over the token's span, the ratio of geometric means (Rank-GRPO, Zhu et al. 2025)
    * ``sequence``: the mean over the completion (GSPO, Zheng et al. 2025, eq. 7)

    Args:
        logprobs: ``[B, T]`` log π_θ with gradient.
        proximal_logprobs: ``[B, T]`` log π_prox.
        mask: ``[B, T]`` bool, trained tokens. Other positions are set to 0 first, so that a NaN there cannot leak.
        span_ids: ``[B, T]`` int64; only read for ``span``.
        level: ``token``, ``span`` or ``sequence``.

    Returns:
        ``[B, T]``; 0 where masked. Under ``span``, a trained token outside every span has ratio 1.
    """
    check_shapes(mask, logprobs, proximal_logprobs, span_ids)
    difference = unmasked(logprobs, mask) - unmasked(proximal_logprobs, mask)
    if level != "token":
        ids = whole(mask) if level == "sequence" else span_ids
        difference = span_sums(difference, mask, ids) / span_counts(mask, ids).clamp(min=1)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def unmasked(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities with 0 where masked; half precision becomes float32, in which sums over tokens keep digits."""
    wide = logprobs.float() if logprobs.dtype in (torch.bfloat16, torch.float16) else logprobs
    return torch.where(mask, wide, torch.zeros((), dtype=wide.dtype, device=wide.device))


def truncated_importance(proximal_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    r"""w_t = min(π_prox(y_t) / π_rollout(y_t), cap): corrects for tokens that another policy sampled.

    Truncated importance sampling (TIS; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"). For a sample of the current step the two policies differ by the engine's rounding alone, for an older
    one by age as well. The weight multiplies the loss and carries no gradient.

    Args:
        proximal_logprobs: ``[B, T]`` log-probabilities under the learner at the start of the step.
        rollout_logprobs: ``[B, T]`` log-probabilities that the engine reported.
        mask: ``[B, T]`` bool, trained tokens.
        cap: largest weight, > 0, usually 2.

    Returns:
        ``[B, T]`` in (0, cap], 1 where masked.

    Raises:
        ValueError: for a cap that is not positive.
    """
    return importance_weights(proximal_logprobs, rollout_logprobs, mask, cap=cap)


def importance_weights(
    proximal_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    *,
    cap: float,
    low: float | None = None,
    kind: ImportanceKind = "truncate",
    level: ImportanceLevel = "token",
) -> Tensor:
    r"""Weights that correct for tokens that another policy than the proximal one sampled; they carry no gradient.

    The weight w is π_prox(y_t) / π_rollout(y_t) of the ``token``, or the product of that over the ``sequence``, which
    is then the weight of all its tokens. ``truncate`` limits it to [low, cap]; ``mask`` makes it 0 outside of that.

    * ``truncate``, token: TIS (Yao et al. 2025; TRL's ``token_truncate``; verl's ``rollout_is: token``)
    * ``mask``, token: TRL's ``token_mask``; with ``low``: IcePop (Ling team 2025, "Every step evolves", arXiv
      2510.18855), which keeps [0.5, 5]
    * ``truncate``, sequence: TRL's ``sequence_truncate``
    * ``mask``, sequence: TRL's ``sequence_mask``, its default for vLLM, with cap 3 (masked importance sampling, MIS;
      Liu et al. 2025, "When speed kills stability")

    A row is one sequence: a trajectory whose history was rewritten has several rows, and each has its own product.

    Args:
        proximal_logprobs: ``[B, T]`` log-probabilities under the learner at the start of the step.
        rollout_logprobs: ``[B, T]`` log-probabilities that the engine reported.
        mask: ``[B, T]`` bool, trained tokens.
        cap: upper limit > 0.
        low: lower limit, 0 ≤ low < cap; None: 0.
        kind: ``truncate`` or ``mask``.
        level: ``token`` or ``sequence``.

    Returns:
        ``[B, T]``, 1 where masked.

    Raises:
        ValueError: for a cap that is not positive, or a lower limit that is negative or not below it.
    """
    check_shapes(mask, proximal_logprobs, rollout_logprobs)
    if cap <= 0:
        raise ValueError(f"importance cap {cap} must be positive")
    if low is not None and not 0 <= low < cap:
        raise ValueError(f"lower importance limit {low} must be at least 0 and below the cap {cap}")
    difference = (unmasked(proximal_logprobs, mask) - unmasked(rollout_logprobs, mask)).detach()
    if level == "sequence":
        difference = difference.sum(1, keepdim=True).expand_as(mask)
    weight = difference.clamp(max=MAX_LOG_RATIO).exp()
    if kind == "truncate":
        weight = weight.clamp(min=low, max=cap)
    else:
        weight = weight.masked_fill((weight > cap) | (weight < (low or 0.0)), 0.0)
    return torch.where(mask, weight, 1.0)
