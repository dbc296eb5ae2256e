"""The clipped policy-gradient loss. GRPO, Dr. GRPO, RLOO, DAPO, GSPO and Rank-GRPO are settings of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlpost.algorithms.aggregation import Aggregation, token_weights
from rlpost.algorithms.kl import KLKind, kl_estimate
from rlpost.algorithms.ratios import Level, log_ratios, truncated_importance
from rlpost.types import Denominators

METRICS = ("loss", "kl", "importance", "ratio", "clip_frac/low", "clip_frac/high")
"""Names of the metrics that `policy_loss` may return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Settings of the loss; see `rlpost.algorithms.ratios`, `kl` and `aggregation` for the choices.

    Attributes:
        ratio: level of the importance ratio, ``token``, ``span`` or ``sequence``.
        clip_low: ε_low ≥ 0; the ratio is clipped to [1 - ε_low, 1 + ε_high].
        clip_high: ε_high ≥ 0.
        aggregate: aggregation of per-token losses, which sets the weight of each token.
        kl_coef: weight β of the KL term; 0: no KL term.
        kl_kind: estimator of the KL divergence.
        importance_cap: cap of the proximal-to-rollout weight (truncated importance sampling, TIS); None: no correction.
    """

    ratio: Level = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    aggregate: Aggregation = "token"
    kl_coef: float = 0.0
    kl_kind: KLKind = "k3"
    importance_cap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """One micro-batch, all ``[B, T]``, padded on the right with ``mask`` false.

    Attributes:
        logprobs: log-probabilities under the current policy, with gradient.
        proximal_logprobs: log-probabilities under the proximal policy, the learner's before the batch's first update.
        advantages: advantage of each token.
        mask: bool, true on trained tokens.
        span_ids: int64 id of each token's span, -1 outside every span.
        rollout_logprobs: log-probabilities reported by the rollout engine; needed if an importance cap is set.
        ref_logprobs: log-probabilities under the frozen reference; needed if the KL coefficient is not 0.
    """

    logprobs: Tensor
    proximal_logprobs: Tensor
    advantages: Tensor
    mask: Tensor
    span_ids: Tensor
    rollout_logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None


def surrogate(log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    r"""ℓ_t = -min(ρ_t A_t, clip(ρ_t, 1 - ε_low, 1 + ε_high) A_t) (Schulman et al. 2017, eq. 7; DAPO, eq. 10).

    Args:
        log_ratio: ``[B, T]`` log ρ with gradient.
        advantages: ``[B, T]`` advantage A of each token.
        clip_low: ε_low ≥ 0.
        clip_high: ε_high ≥ 0, larger than ε_low for DAPO's clip-higher.

    Returns:
        ``[B, T]`` loss ℓ of each token.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def policy_loss(inputs: LossInputs, settings: LossSettings, counts: Denominators) -> tuple[Tensor, dict[str, Tensor]]:
    r"""L = Σ_t w_t (u_t ℓ_t + β KL_t) with weights w (aggregation), u (proximal-to-rollout importance).

    Args:
        inputs: one micro-batch.
        settings: ratio level, clip range, aggregation, KL term and importance cap.
        counts: counts over the global minibatch, the same for every micro-batch and rank.

    Returns:
        The micro-batch's share of the loss (shares add up over micro-batches and ranks) and detached sums that also add
        up: ``loss`` and, with a KL term, ``kl``, weighted as the loss is; ``ratio``, ``clip_frac/low``,
        ``clip_frac/high`` and, with a cap, ``importance``, already divided by the global token count.

    Raises:
        ValueError: if a tensor that the settings need is missing.
    """
    mask = inputs.mask
    log_ratio = log_ratios(inputs.logprobs, inputs.proximal_logprobs, mask, inputs.span_ids, settings.ratio)
    advantages = inputs.advantages.masked_fill(~mask, 0)
    per_token = surrogate(log_ratio, advantages, settings.clip_low, settings.clip_high)
    weights = token_weights(mask, inputs.span_ids, settings.aggregate, counts)
    sums = _ratio_sums(log_ratio.detach(), advantages, mask, settings, counts)
    if settings.importance_cap is not None:
        if inputs.rollout_logprobs is None:
            raise ValueError(
                "the importance correction needs the rollout engine's log-probabilities (rollout.logprobs: auto)"
            )
        importance = truncated_importance(
            inputs.proximal_logprobs, inputs.rollout_logprobs, mask, settings.importance_cap
        )
        per_token = per_token * importance
        sums["importance"] = (importance * mask).sum() / max(counts.tokens, 1)
    if settings.kl_coef != 0.0:
        if inputs.ref_logprobs is None:
            raise ValueError("a KL term needs the reference's log-probabilities")
        divergence = kl_estimate(inputs.logprobs, inputs.ref_logprobs, mask, settings.kl_kind)
        per_token = per_token + settings.kl_coef * divergence
        sums["kl"] = (weights * divergence.detach()).sum()
    loss = (weights * per_token).sum()
    sums["loss"] = loss.detach()
    return loss, sums


def _ratio_sums(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, settings: LossSettings, counts: Denominators
) -> dict[str, Tensor]:
    """Shares of tokens whose gradient the clip removed, below and above, and the mean ratio."""
    ratio, tokens = log_ratio.exp(), max(counts.tokens, 1)
    low = mask & (ratio < 1 - settings.clip_low) & (advantages < 0)
    high = mask & (ratio > 1 + settings.clip_high) & (advantages > 0)
    return {
        "clip_frac/low": low.sum() / tokens,
        "clip_frac/high": high.sum() / tokens,
        "ratio": (ratio * mask).sum() / tokens,
    }
