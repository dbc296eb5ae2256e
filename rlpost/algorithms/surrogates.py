"""Policy-gradient terms of single tokens: what is pushed, how hard, and where a limit stops the push.

Each function returns `Terms`: the loss ℓ of every token before weights, and which tokens the limit acts on. Positions
outside the mask are the caller's to leave out; they must hold finite numbers (`rlpost.algorithms.ratios.log_ratios`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlpost.algorithms.masks import check_shapes, span_counts, span_sums
from rlpost.algorithms.ratios import MAX_LOG_RATIO

Surrogate = Literal["clipped", "cispo", "gmpo", "dppo_tv", "dppo_kl"]

_LARGEST_LOGPROB = -1e-7
"""A probability of exactly 1 leaves 0 for all other tokens, whose logarithm is -∞."""


class Terms(NamedTuple):
    """What a surrogate says of every token, all ``[B, T]``.

    Attributes:
        loss: ℓ, with gradient.
        ratio: importance ratio whose mean is reported, without gradient.
        low: bool, tokens on which the lower limit acts: their gradient is removed, or (CISPO) their weight is clipped.
        high: bool, the same of the upper limit.
    """

    loss: Tensor
    ratio: Tensor
    low: Tensor
    high: Tensor


def clipped(
    log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, delta: float | None = None
) -> Terms:
    r"""ℓ_t = -min(min(ρ_t, δ) A_t, clip(ρ_t, 1 - ε_low, 1 + ε_high) A_t).

    Without δ this is PPO's surrogate (Schulman et al. 2017, eq. 7; DAPO, Yu et al. 2025, eq. 10). With a negative
    advantage it grows with the ratio without bound; δ bounds it (dual clip: Ye et al. 2020, "Mastering complex control
    in MOBA games with deep reinforcement learning"; two-sided clip: Prime Intellect 2025, "INTELLECT-2"). TRL's
    ``delta``, verl's ``clip_ratio_c``.

    Args:
        log_ratio: ``[B, T]`` log ρ with gradient.
        advantages: ``[B, T]`` advantage A of each token.
        clip_low: ε_low ≥ 0.
        clip_high: ε_high ≥ 0, larger than ε_low for DAPO's clip-higher.
        delta: δ > 1 + ε_high, so that it acts on negative advantages alone; None: no such bound.
    """
    ratio = log_ratio.exp()
    bounded = ratio if delta is None else ratio.clamp(max=delta)
    inside = ratio.clamp(1 - clip_low, 1 + clip_high)
    seen = ratio.detach()
    high = (seen > 1 + clip_high) & (advantages > 0)
    if delta is not None:
        high = high | ((seen > delta) & (advantages < 0))
    low = (seen < 1 - clip_low) & (advantages < 0)
    return Terms(-torch.minimum(bounded * advantages, inside * advantages), seen, low, high)


def cispo(log_ratio: Tensor, logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Terms:
    r"""ℓ_t = -sg(clip(ρ_t, 1 - ε_low, 1 + ε_high)) A_t log π_θ(y_t), with sg: no gradient.

    MiniMax 2025, "MiniMax-M1" (arXiv 2506.13585), eq. 4 and 5: the weight is clipped, not the gradient, so that every
    token takes part in every update. ε_low ≥ 1 means no lower limit, as in the paper. TRL's ``epsilon_high`` is the
    largest weight itself, here 1 + ε_high.

    Args:
        log_ratio: ``[B, T]`` log ρ.
        logprobs: ``[B, T]`` log π_θ with gradient, 0 where masked.
        advantages: ``[B, T]`` advantage A of each token.
        clip_low: ε_low ≥ 0.
        clip_high: ε_high ≥ 0.
    """
    ratio = log_ratio.detach().exp()
    moved = advantages != 0
    loss = -ratio.clamp(1 - clip_low, 1 + clip_high) * advantages * logprobs
    return Terms(loss, ratio, (ratio < 1 - clip_low) & moved, (ratio > 1 + clip_high) & moved)


def gmpo(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, span_ids: Tensor, clip_low: float, clip_high: float
) -> Terms:
    r"""ℓ_t = -A_t exp(mean_s s_A min(s_A d_s, s_A clip(d_s, -ε_low, ε_high))), with d = log ρ and s_A = sign(A_s).

    Zhao et al. 2025, "Geometric-mean policy optimization" (arXiv 2507.20673): the geometric mean of the tokens'
    ratios, each clipped first where the sign of its advantage asks for it. The limits are those of the *logarithm*: the
    paper's (e^-0.4, e^0.4) is ε = 0.4. The mean is over the token's span; one span over the completion is the paper. A
    token whose advantage is 0 counts with the ratio 1.

    Args:
        log_ratio: ``[B, T]`` log ρ of single tokens with gradient, 0 where masked.
        advantages: ``[B, T]`` advantage A of each token.
        mask: ``[B, T]`` bool, trained tokens.
        span_ids: ``[B, T]`` int64, the spans that a mean is taken over.
        clip_low: ε_low ≥ 0.
        clip_high: ε_high ≥ 0.
    """
    check_shapes(mask, log_ratio, advantages, span_ids)
    sign = advantages.sign()
    inside = log_ratio.clamp(-clip_low, clip_high)
    limited = sign * torch.minimum(sign * log_ratio, sign * inside)
    mean = span_sums(limited, mask, span_ids) / span_counts(mask, span_ids).clamp(min=1)
    seen = log_ratio.detach()
    low, high = (seen < -clip_low) & (advantages < 0), (seen > clip_high) & (advantages > 0)
    return Terms(-advantages * mean.exp(), mean.detach().exp(), low, high)


def dppo(
    kind: Literal["dppo_tv", "dppo_kl"],
    logprobs: Tensor,
    rollout_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    cap: float,
) -> Terms:
    r"""ℓ_t = -M_t sg(min(π_θ(y_t) / μ(y_t), C)) A_t log π_θ(y_t), where μ is the policy that sampled.

    Qi et al. 2026, "Rethinking the trust region in LLM reinforcement learning" (arXiv 2602.04879), eq. 11 to 14: M_t
    is 0 where an update would lead further away (A > 0 and π > μ, or A < 0 and π < μ) from a μ that is already further
    than a limit, else 1. The distance is that of the two-way choice between y_t and anything else:

    * ``dppo_tv``: total variation |π - μ|
    * ``dppo_kl``: μ log(μ/π) + (1 - μ) log((1 - μ)/(1 - π)), in nats

    Args:
        kind: the distance.
        logprobs: ``[B, T]`` log π_θ with gradient, 0 where masked.
        rollout_logprobs: ``[B, T]`` log μ that the engine reported, 0 where masked.
        advantages: ``[B, T]`` advantage A of each token.
        clip_low: limit δ_low ≥ 0 for tokens with a negative advantage.
        clip_high: limit δ_high ≥ 0 for tokens with a positive one.
        cap: C > 0, the largest weight.
    """
    ours, theirs = logprobs.detach(), rollout_logprobs.detach()
    distance = (ours.exp() - theirs.exp()).abs() if kind == "dppo_tv" else _two_way_kl(theirs, ours)
    low = (distance > clip_low) & (ours < theirs) & (advantages < 0)
    high = (distance > clip_high) & (ours > theirs) & (advantages > 0)
    ratio = (ours - theirs).clamp(max=MAX_LOG_RATIO).exp()
    weight = ratio.clamp(max=cap).masked_fill(low | high, 0.0)
    return Terms(-weight * advantages * logprobs, ratio, low, high)


def _two_way_kl(first: Tensor, second: Tensor) -> Tensor:
    """KL between Bernoulli(e^first) and Bernoulli(e^second), from logarithms."""
    first, second = first.clamp(max=_LARGEST_LOGPROB), second.clamp(max=_LARGEST_LOGPROB)
    rest = (-torch.expm1(first)).log() - (-torch.expm1(second)).log()
    # 0 · -∞ of a token that the engine thought impossible is 0
    own = torch.where(first == -torch.inf, 0.0, first.exp() * (first - second))
    return own - torch.expm1(first) * rest
