"""The loss of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs
from rlpost.errors import SelfCheckError
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


def completion(values: np.ndarray | None, sample: TrainSample) -> np.ndarray | None:
    """``[L]`` log-probabilities of a sample from its first trained token on, 0 where nothing is trained."""
    return None if values is None else np.where(sample.mask, values, np.float32(0.0))[sample.prompt_tokens :]


def micro_loss(
    logprobs: Tensor,
    micro: MicroBatch,
    samples: Sequence[TrainSample],
    loss: BoundLoss,
    counts: Denominators,
    version: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of the loss and of the metrics; see `loss_inputs` and `rlpost.algorithms.losses`.

    Returns:
        A scalar to call backward on, also if there are no samples, and detached sums by metric.

    Raises:
        SelfCheckError: as `old_or_current`.
    """
    return loss(loss_inputs(logprobs, micro, samples, version), counts) if samples else (logprobs.sum() * 0.0, {})


def loss_inputs(logprobs: Tensor, micro: MicroBatch, samples: Sequence[TrainSample], version: int) -> LossInputs:
    """What a loss is given of a micro-batch.

    Args:
        logprobs: ``[B, T]`` under the current policy, with gradient.
        micro: the collated samples.
        samples: the samples that ``micro`` was collated from, in its order; at least one.
        version: policy version of the learner.

    Raises:
        SelfCheckError: as `old_or_current`.
    """
    width, device = logprobs.shape[1], logprobs.device
    proximal = old_or_current(logprobs, samples, version)
    rollout = pad([completion(s.rollout_logprobs, s) for s in samples], width, 0.0, torch.float32, device)
    advantages = pad([s.advantages[s.prompt_tokens :] for s in samples], width, 0.0, torch.float32, device)
    spans = pad([s.span_ids[s.prompt_tokens :] for s in samples], width, -1, torch.long, device)
    assert advantages is not None
    assert spans is not None
    return LossInputs(
        logprobs=logprobs,
        proximal_logprobs=proximal,
        advantages=advantages,
        mask=micro.mask,
        span_ids=spans,
        rollout_logprobs=rollout,
        ref_logprobs=pad([completion(s.ref_logprobs, s) for s in samples], width, 0.0, torch.float32, device),
    )


def old_or_current(logprobs: Tensor, samples: Sequence[TrainSample], version: int) -> Tensor:
    """``[B, T]`` log-probabilities under the proximal policy, without gradient.

    A sample without them is in the first update since it was sampled by the learner's present version, so the current
    policy still is the proximal one: its ratio is 1, and only the ratio's gradient matters.

    Args:
        logprobs: ``[B, T]`` under the current policy.
        samples: the samples of the rows.
        version: policy version of the learner.

    Raises:
        SelfCheckError: for a sample that lacks them and was sampled by another version, whose ratio would be wrong.
    """
    found = logprobs.detach().clone()
    for row, sample in enumerate(samples):
        known = completion(sample.proximal_logprobs, sample)
        if known is not None:
            found[row, : len(known)] = torch.from_numpy(known).to(found)
            continue
        others = sample.versions[sample.mask & (sample.versions != version)]
        if others.size:
            raise SelfCheckError(
                f"learner: {others.size} tokens of a sample were sampled by policy version {others[0]}, the learner is "
                f"at version {version}, and no proximal log-probabilities are there to form the ratio with; this is a "
                "fault of the loop, or of an engine that names the wrong version"
            )
    return found
