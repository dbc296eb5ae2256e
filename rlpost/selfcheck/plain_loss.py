"""The loss of one sample in float64, written from the papers' formulas, for `rlpost.selfcheck.independent`.

Nothing here is used for training, and nothing of `rlpost.algorithms` is used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.schema import RunConfig

if TYPE_CHECKING:
    from rlpost.selfcheck.independent import Counts, PlainSample

_KINK = 1e-4
"""Distance of a ratio from a bound of its clip range within which float32 may decide otherwise than float64."""


def unsupported_reason(config: RunConfig) -> str | None:
    """Why the configured loss has no second formula here; None if it has one."""
    if config.algorithm.loss != "clipped":
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
        ``[n]`` derivatives, and ``[n]`` bool: whether the derivative does not hang on rounding at a clip bound.
    """
    logp = torch.tensor(current, dtype=torch.float64, requires_grad=True)
    value, certain = loss(config, sample, logp, torch.tensor(proximal, dtype=torch.float64), reference, counts)
    (slope,) = torch.autograd.grad(value, logp)
    return slope.numpy(), certain.numpy()


def loss(
    config: RunConfig, sample: PlainSample, logp: Tensor, proximal: Tensor, reference: Any, counts: Counts
) -> tuple[Tensor, Tensor]:
    """A sample's share of the loss, with gradient, and which tokens' ratios are not at a clip bound.

    Args:
        config: the loss and its settings.
        sample: the sample.
        logp: ``[n]`` float64 log-probabilities with gradient.
        proximal: ``[n]`` float64.
        reference: ``[n]`` numbers, or None without a KL term.
        counts: what the update divides by.
    """
    algorithm = config.algorithm
    spans = torch.as_tensor(sample.spans, device=logp.device)
    advantage = torch.as_tensor(sample.advantages, device=logp.device)
    ratio = _mean_within(logp - proximal, algorithm.ratio, spans).exp()
    low, high = 1.0 - algorithm.clip[0], 1.0 + algorithm.clip[1]
    # pessimistic: a good token's ratio counts up to the upper bound, a bad one's from the lower bound on
    bounded = torch.where(advantage > 0, torch.clip(ratio, max=high), torch.clip(ratio, min=low))
    per_token = -bounded * advantage
    certain = ((ratio - low).abs() > _KINK) & ((ratio - high).abs() > _KINK)
    if config.importance_cap is not None and sample.rollout is not None:
        weight = (proximal - torch.as_tensor(sample.rollout, device=logp.device)).exp()
        per_token = per_token * torch.clip(weight, max=config.importance_cap).detach()
    if algorithm.kl.coef and reference is not None:
        gap = torch.as_tensor(np.asarray(reference, np.float64), device=logp.device) - logp
        kl = gap**2 / 2 if algorithm.kl.kind == "k2" else gap.exp() - gap - 1
        per_token = per_token + algorithm.kl.coef * kl
    return (per_token * _weights(algorithm.aggregate, spans, counts)).sum(), certain


def _mean_within(values: Tensor, level: str, spans: Tensor) -> Tensor:
    if level == "token":
        return values
    if level == "sequence":
        return values.mean().expand(len(values))
    parts = [values[spans == span].mean() if int(span) >= 0 else values.sum() * 0 for span in spans]
    return torch.stack(parts)


def _weights(kind: str, spans: Tensor, counts: Counts) -> Tensor:
    one = torch.ones(len(spans), dtype=torch.float64, device=spans.device)
    if kind == "token":
        return one / counts.tokens
    if kind == "sequence":
        return one / len(spans) / counts.sequences
    if kind == "sequence_sum":
        return one / counts.sequences
    if kind == "constant":
        return one / counts.max_tokens / counts.sequences
    sizes = [int((spans == span).sum()) if int(span) >= 0 else 0 for span in spans]
    return torch.tensor([1.0 / size if size else 0.0 for size in sizes], dtype=torch.float64) / max(counts.spans, 1)
