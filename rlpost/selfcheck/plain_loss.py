"""The loss of one sample in float64, written from the papers' formulas, for `rlpost.selfcheck.independent`.

Nothing here is used for training, and nothing of `rlpost.algorithms` is used here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.schema import AlgorithmSection, RunConfig
from rlpost.selfcheck.plain_samples import Counts, PlainSample

_KINK = 1e-4
"""Distance from a limit within which float32 may decide otherwise than float64, as a share of it or of 1."""

_FURTHEST_RATIO = 20.0
"""|log ρ| in nats beyond which a ratio stays what it is there, and has no gradient."""

_FURTHEST_KL = 10.0
"""|log π_ref - log π| in nats beyond which the KL term stays what it is there, and has no gradient (as in verl)."""

_LOSSES = ("clipped", "cispo", "gmpo", "dppo_tv", "dppo_kl")


def unsupported_reason(config: RunConfig) -> str | None:
    """Why the configured loss has no second formula here; None if it has one."""
    if config.algorithm.loss not in _LOSSES:
        return f"algorithm.loss {config.algorithm.loss!r} is not part of rlpost"
    return None


def derivative(
    config: RunConfig,
    sample: PlainSample,
    *,
    current: np.ndarray,
    proximal: np.ndarray,
    reference: np.ndarray | None,
    counts: Counts,
) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of an update's loss by the log-probabilities of a sample's tokens.

    Args:
        config: the loss and its settings.
        sample: the sample.
        current: ``[n]`` log-probabilities at the update.
        proximal: ``[n]``.
        reference: ``[n]``, or None without a KL term.
        counts: what the update divides by.

    Returns:
        ``[n]`` derivatives, and ``[n]`` bool: whether the derivative does not hang on rounding at a limit.
    """
    logp = torch.tensor(current, dtype=torch.float64, requires_grad=True)
    value, certain = loss(config, sample, logp, torch.tensor(proximal, dtype=torch.float64), reference, counts)
    (slope,) = torch.autograd.grad(value, logp)
    return slope.numpy(), certain.numpy()


def loss(
    config: RunConfig, sample: PlainSample, logp: Tensor, proximal: Tensor, reference: Any, counts: Counts
) -> tuple[Tensor, Tensor]:
    """A sample's share of the loss, with gradient, and which tokens are not at a limit.

    Args:
        config: the loss and its settings.
        sample: the sample.
        logp: ``[n]`` float64 log-probabilities with gradient.
        proximal: ``[n]`` float64.
        reference: ``[n]`` numbers, or None without a KL term.
        counts: what the update divides by.
    """
    algorithm = config.algorithm

    def like(values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.float64), device=logp.device)

    spans, advantage = torch.as_tensor(sample.spans, device=logp.device), like(sample.advantages)
    sampled = None if sample.rollout is None else like(sample.rollout)
    if algorithm.loss.startswith("dppo"):
        assert sampled is not None
        per_token, certain = _dppo(config, logp, sampled, advantage)
    else:
        per_token, certain = _surrogate(algorithm, logp, proximal, advantage, spans)
        if config.importance_cap is not None and sampled is not None:
            weight, known = _importance(config, proximal - sampled)
            per_token, certain = per_token * weight, certain & known
    if algorithm.kl.coef and reference is not None:
        gap = like(reference) - logp
        certain = certain & _far(gap.abs(), _FURTHEST_KL)
        gap = torch.clip(gap, -_FURTHEST_KL, _FURTHEST_KL)
        kl = gap**2 / 2 if algorithm.kl.kind == "k2" else gap.exp() - gap - 1
        per_token = per_token + algorithm.kl.coef * kl
    return (per_token * _weights(algorithm, spans, counts)).sum(), certain


def _surrogate(
    algorithm: AlgorithmSection, logp: Tensor, proximal: Tensor, advantage: Tensor, spans: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of each token, case by case of its advantage's sign."""
    low, high = algorithm.clip
    if algorithm.loss == "gmpo":
        moved, inside = _limited(logp - proximal)
        certain = inside & _far(moved.exp(), math.exp(high)) & _far(moved.exp(), math.exp(-low))
        limited = torch.where(advantage > 0, torch.clip(moved, max=high), torch.clip(moved, min=-low))
        limited = torch.where(advantage == 0, 0.0, limited)
        # a limit that is decided otherwise changes the mean of the whole part
        mean = _mean_within(limited, algorithm.ratio, spans)
        return -advantage * mean.exp(), certain.all().expand(len(certain))
    moved, inside = _limited(_mean_within(logp - proximal, algorithm.ratio, spans))
    ratio = moved.exp()
    certain = inside & _far(ratio, 1 - low) & _far(ratio, 1 + high)
    if algorithm.loss == "cispo":
        return -torch.clip(ratio.detach(), 1 - low, 1 + high) * advantage * logp, certain
    # pessimistic: a good token's ratio counts up to the upper bound, a bad one's from the lower bound on
    if algorithm.delta is not None:
        certain = certain & _far(ratio, algorithm.delta)
    bad = torch.clip(ratio, min=1 - low, max=algorithm.delta)
    return -torch.where(advantage > 0, torch.clip(ratio, max=1 + high), bad) * advantage, certain


def _dppo(config: RunConfig, logp: Tensor, sampled: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """DPPO: tokens that have moved too far from the policy that sampled, in the direction they are pushed, are left."""
    assert config.importance_cap is not None
    (low, high), now, then = config.algorithm.clip, logp.detach().exp(), sampled.exp()
    if config.algorithm.loss == "dppo_tv":
        distance = (now - then).abs()
    else:
        distance = then * (sampled - logp.detach()) + (1 - then) * torch.log((1 - then) / (1 - now))
        distance = torch.where(then >= 1 - 1e-7, then * (sampled - logp.detach()), distance)
    left = (advantage > 0) & (now > then) & (distance > high) | (advantage < 0) & (now < then) & (distance > low)
    weight = torch.clip(now / then, max=config.importance_cap)
    certain = _far(distance, low) & _far(distance, high) & (then < 1 - 1e-6) & (now < 1 - 1e-6)
    return -torch.where(left, 0.0, weight) * advantage * logp, certain


def _importance(config: RunConfig, gap: Tensor) -> tuple[Tensor, Tensor]:
    """Weight of each token for the difference of the policies that sampled and that is compared with."""
    settings, cap = config.algorithm.importance, config.importance_cap
    assert cap is not None
    floor = settings.low or 0.0
    weight = (gap.sum().expand(len(gap)) if settings.level == "sequence" else gap).exp()
    if settings.mode != "mask":
        return torch.clip(weight, floor, cap), torch.ones_like(weight, dtype=torch.bool)
    return torch.where((weight >= floor) & (weight <= cap), weight, 0.0), _far(weight, cap) & _far(weight, floor)


def _limited(moved: Tensor) -> tuple[Tensor, Tensor]:
    """Log-ratios within what is finite in float32, and whether they are not at that limit."""
    return torch.clip(moved, -_FURTHEST_RATIO, _FURTHEST_RATIO), _far(moved.abs(), _FURTHEST_RATIO)


def _far(values: Tensor, limit: float) -> Tensor:
    return (values.detach() - limit).abs() > _KINK * max(abs(limit), 1e-3)


def _mean_within(values: Tensor, level: str, spans: Tensor) -> Tensor:
    if level == "token":
        return values
    if level == "sequence":
        return values.mean().expand(len(values))
    parts = [values[spans == span].mean() if int(span) >= 0 else values.sum() * 0 for span in spans]
    return torch.stack(parts)


def _weights(algorithm: AlgorithmSection, spans: Tensor, counts: Counts) -> Tensor:
    one, kind = torch.ones(len(spans), dtype=torch.float64, device=spans.device), algorithm.aggregate
    if kind == "token":
        return one / counts.tokens
    if kind == "sequence":
        return one / len(spans) / counts.sequences
    if kind == "sequence_sum":
        return one / counts.sequences
    if kind == "constant":
        return one / counts.max_tokens / counts.sequences
    divisor = counts.spans
    if algorithm.spans_per_completion is not None:
        divisor = counts.sequences * algorithm.spans_per_completion
    sizes = [int((spans == span).sum()) if int(span) >= 0 else 0 for span in spans]
    return torch.tensor([1.0 / size if size else 0.0 for size in sizes], dtype=torch.float64) / max(divisor, 1)
