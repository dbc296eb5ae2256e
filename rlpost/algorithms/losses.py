"""The policy-gradient loss. GRPO, Dr. GRPO, RLOO, DAPO, GSPO, Rank-GRPO, CISPO, GMPO and DPPO are settings of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from rlpost.algorithms.aggregation import Aggregation, token_weights
from rlpost.algorithms.kl import KLKind, kl_estimate
from rlpost.algorithms.masks import whole
from rlpost.algorithms.ratios import (
    ImportanceKind,
    ImportanceLevel,
    Level,
    importance_weights,
    log_ratios,
    unmasked,
)
from rlpost.algorithms.surrogates import Surrogate, Terms, cispo, clipped, dppo, gmpo
from rlpost.types import Denominators

METRICS = ("loss", "kl", "importance", "importance_masked", "ratio", "clip_frac/low", "clip_frac/high")
"""Names of the metrics that `policy_loss` may return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Settings of the loss; see `rlpost.algorithms.surrogates`, `ratios`, `kl` and `aggregation` for the choices.

    Attributes:
        surrogate: what is pushed: ``clipped`` (PPO's), ``cispo``, ``gmpo``, ``dppo_tv`` or ``dppo_kl``.
        ratio: level of the importance ratio, ``token``, ``span`` or ``sequence``; of ``gmpo``, what its geometric mean
            is taken over (``span`` or ``sequence``); ``dppo_tv`` and ``dppo_kl`` know tokens only.
        clip_low: ε_low ≥ 0; the ratio is clipped to [1 - ε_low, 1 + ε_high]. Of ``gmpo``, limits of log-ratios; of
            ``dppo_tv`` and ``dppo_kl``, of the distance between the two policies.
        clip_high: ε_high ≥ 0.
        delta: largest ratio that a negative advantage is multiplied by, > 1 + ε_high; only read by ``clipped``. None:
            no such limit.
        aggregate: aggregation of per-token losses, which sets the weight of each token.
        kl_coef: weight β of the KL term; 0: no KL term.
        kl_kind: estimator of the KL divergence.
        importance_cap: upper limit of the proximal-to-rollout weight; None: no correction. Of ``dppo_tv`` and
            ``dppo_kl``, of the weight of the current against the rollout policy, and it must be given.
        importance_low: lower limit of that weight; None: 0.
        importance_kind: ``truncate`` weights to these limits, or ``mask`` what is outside them.
        importance_level: one weight for each ``token``, or one for the ``sequence``.
    """

    surrogate: Surrogate = "clipped"
    ratio: Level = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    delta: float | None = None
    aggregate: Aggregation = "token"
    kl_coef: float = 0.0
    kl_kind: KLKind = "k3"
    importance_cap: float | None = None
    importance_low: float | None = None
    importance_kind: ImportanceKind = "truncate"
    importance_level: ImportanceLevel = "token"


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


def policy_loss(inputs: LossInputs, settings: LossSettings, counts: Denominators) -> tuple[Tensor, dict[str, Tensor]]:
    r"""L = Σ_t w_t (u_t ℓ_t + β KL_t) with weights w (aggregation), u (proximal-to-rollout importance).

    A token that the importance correction or a surrogate masks still counts in the denominators, as in TRL and verl.

    Args:
        inputs: one micro-batch.
        settings: surrogate, ratio level, clip range, aggregation, KL term and importance limits.
        counts: counts over the global minibatch, the same for every micro-batch and rank.

    Returns:
        The micro-batch's share of the loss (shares add up over micro-batches and ranks) and detached sums that also add
        up: ``loss`` and, with a KL term, ``kl``, weighted as the loss is; ``ratio``, ``clip_frac/low``,
        ``clip_frac/high`` and, with a cap, ``importance`` (``importance_masked`` with ``mask``), already divided by the
        global token count.

    Raises:
        ValueError: if a tensor that the settings need is missing.
    """
    mask, tokens = inputs.mask, max(counts.tokens, 1)
    # once for all terms: the sum of their gradients would round in half precision
    inputs = replace(inputs, logprobs=unmasked(inputs.logprobs, mask))
    terms = _terms(inputs, settings)
    per_token = terms.loss
    weights = token_weights(mask, inputs.span_ids, settings.aggregate, counts)
    sums = {
        "clip_frac/low": (mask & terms.low).sum() / tokens,
        "clip_frac/high": (mask & terms.high).sum() / tokens,
        "ratio": (terms.ratio * mask).sum() / tokens,
    }
    if settings.importance_cap is not None:
        importance = _importance(inputs, settings, terms)
        sums["importance"] = (importance * mask).sum() / tokens
        if settings.importance_kind == "mask":
            sums["importance_masked"] = ((importance == 0) & mask).sum() / tokens
        if not settings.surrogate.startswith("dppo"):
            per_token = per_token * importance
    if settings.kl_coef != 0.0:
        if inputs.ref_logprobs is None:
            raise ValueError("a KL term needs the reference's log-probabilities")
        divergence = kl_estimate(inputs.logprobs, inputs.ref_logprobs, mask, settings.kl_kind)
        per_token = per_token + settings.kl_coef * divergence
        sums["kl"] = (weights * divergence.detach()).sum()
    loss = (weights * per_token).sum()
    sums["loss"] = loss.detach()
    return loss, sums


def _terms(inputs: LossInputs, settings: LossSettings) -> Terms:
    """The configured surrogate of every token; ``inputs.logprobs`` holds 0 where masked."""
    mask, low, high = inputs.mask, settings.clip_low, settings.clip_high
    advantages = inputs.advantages.masked_fill(~mask, 0)
    if settings.surrogate in ("dppo_tv", "dppo_kl"):
        if inputs.rollout_logprobs is None or settings.importance_cap is None:
            raise ValueError(
                f"{settings.surrogate} compares with the policy that sampled: it needs an importance cap and the "
                "rollout engine's log-probabilities (rollout.logprobs: auto)"
            )
        theirs = unmasked(inputs.rollout_logprobs, mask)
        return dppo(settings.surrogate, inputs.logprobs, theirs, advantages, low, high, settings.importance_cap)
    level = "token" if settings.surrogate == "gmpo" else settings.ratio
    log_ratio = log_ratios(inputs.logprobs, inputs.proximal_logprobs, mask, inputs.span_ids, level)
    if settings.surrogate == "gmpo":
        spans = inputs.span_ids if settings.ratio == "span" else whole(mask)
        return gmpo(log_ratio, advantages, mask, spans, low, high)
    if settings.surrogate == "cispo":
        return cispo(log_ratio, inputs.logprobs, advantages, low, high)
    return clipped(log_ratio, advantages, low, high, settings.delta)


def _importance(inputs: LossInputs, settings: LossSettings, terms: Terms) -> Tensor:
    """The weight of every token for the difference between the policies that sampled and that are compared with."""
    assert settings.importance_cap is not None
    if settings.surrogate.startswith("dppo"):
        return terms.ratio.clamp(max=settings.importance_cap)
    if inputs.rollout_logprobs is None:
        raise ValueError(
            "the importance correction needs the rollout engine's log-probabilities (rollout.logprobs: auto)"
        )
    return importance_weights(
        inputs.proximal_logprobs,
        inputs.rollout_logprobs,
        inputs.mask,
        cap=settings.importance_cap,
        low=settings.importance_low,
        kind=settings.importance_kind,
        level=settings.importance_level,
    )
