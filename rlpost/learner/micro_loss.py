"""The loss of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs
from rlpost.learner.collate import MicroBatch
from rlpost.plugins.algorithm import BoundLoss
from rlpost.types import Denominators, TrainSample


def pad(
    rows: Sequence[np.ndarray | None], width: int, fill: float, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Arrays ``[T_i]`` as one ``[B, width]`` tensor padded with ``fill``; None if all are absent."""
    present = [row for row in rows if row is not None]
    if not present:
        return None
    if len(present) != len(rows):
        raise ValueError(
            f"{len(rows) - len(present)} of {len(rows)} samples of a micro-batch lack a column the others have"
        )
    result = torch.full((len(rows), width), fill, dtype=dtype)
    for i, row in enumerate(present):
        result[i, : len(row)] = torch.from_numpy(np.array(row)).to(dtype)
    return result.to(device)


def micro_loss(
    logprobs: Tensor,
    micro: MicroBatch,
    samples: Sequence[TrainSample],
    loss: BoundLoss,
    counts: Denominators,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of the loss and of the metrics; see `rlpost.algorithms.losses`.

    Args:
        logprobs: ``[B, T]`` under the current policy, with gradient.
        micro: the collated samples.
        samples: the samples that ``micro`` was collated from, in its order.
        loss: the configured loss.
        counts: denominators, counted over the global minibatch.

    Returns:
        A scalar to call backward on, also if there are no samples, and detached sums by metric.
    """
    if not samples:
        return logprobs.sum() * 0.0, {}
    width, device = logprobs.shape[1], logprobs.device
    old = old_or_current(logprobs, samples)
    rollout = pad([s.rollout_logprobs for s in samples], width, 0.0, torch.float32, device)
    advantages = pad([s.advantages for s in samples], width, 0.0, torch.float32, device)
    spans = pad([s.span_ids for s in samples], width, -1, torch.long, device)
    assert advantages is not None
    assert spans is not None
    inputs = LossInputs(
        logprobs=logprobs,
        old_logprobs=old,
        advantages=advantages,
        mask=micro.mask,
        span_ids=spans,
        rollout_logprobs=rollout,
        ref_logprobs=pad([s.ref_logprobs for s in samples], width, 0.0, torch.float32, device),
    )
    value, sums = loss(inputs, counts)
    tokens = max(counts.tokens, 1)
    sums["entropy"] = torch.where(micro.mask, -logprobs.detach(), 0.0).sum() / tokens
    if rollout is not None:
        difference = torch.where(micro.mask, old - rollout, 0.0).abs()
        sums["mismatch"] = difference.sum() / tokens
    return value, sums


def old_or_current(logprobs: Tensor, samples: Sequence[TrainSample]) -> Tensor:
    """``[B, T]`` log-probabilities of the old policy, without gradient.

    A sample without them is in the first update since it was drawn, where the current policy still is the old one: its
    ratio is 1, and only the ratio's gradient matters.
    """
    old = logprobs.detach().clone()
    for row, sample in enumerate(samples):
        if sample.old_logprobs is not None:
            old[row, : len(sample.old_logprobs)] = torch.from_numpy(np.array(sample.old_logprobs)).to(old)
    return old
