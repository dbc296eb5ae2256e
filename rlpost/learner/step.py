"""Samples into tensors, and the loss of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.types import Denominators, TrainSample


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Padded tensors of a few samples: ``L`` tokens of prompt and completion, ``T`` of completion.

    Attributes:
        input_ids: ``[B, L]``, padded on the right.
        attention_mask: ``[B, L]``.
        positions: ``[B, T]``, whose logits predict the completion's tokens.
        token_ids: ``[B, T]``.
        mask: ``[B, T]`` bool, trained tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    token_ids: Tensor
    mask: Tensor


def collate(samples: Sequence[TrainSample], device: torch.device) -> MicroBatch:
    """Pad samples on the right. Without samples: one masked token, so that a rank without work still runs forward and
    backward and sharded parameters are gathered by all ranks together.
    """
    if not samples:
        ids = torch.zeros(1, 2, dtype=torch.long, device=device)
        one = ids[:, :1]
        return MicroBatch(
            input_ids=ids, attention_mask=torch.ones_like(ids), positions=one, token_ids=one, mask=one.bool()
        )
    rows, longest = len(samples), max(s.length for s in samples)
    width = max(len(s.completion_ids) for s in samples)
    input_ids = np.zeros((rows, longest), np.int64)
    attention = np.zeros((rows, longest), np.int64)
    positions = np.zeros((rows, width), np.int64)
    token_ids = np.zeros((rows, width), np.int64)
    mask = np.zeros((rows, width), bool)
    for row, sample in enumerate(samples):
        prompt, size = len(sample.prompt_ids), len(sample.completion_ids)
        input_ids[row, :prompt] = sample.prompt_ids
        input_ids[row, prompt : prompt + size] = sample.completion_ids
        attention[row, : prompt + size] = 1
        positions[row] = prompt - 1
        positions[row, :size] = np.arange(prompt - 1, prompt - 1 + size)
        token_ids[row, :size] = sample.completion_ids
        mask[row, :size] = sample.mask

    def to(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return MicroBatch(
        input_ids=to(input_ids),
        attention_mask=to(attention),
        positions=to(positions),
        token_ids=to(token_ids),
        mask=to(mask),
    )


def pad(
    rows: Sequence[np.ndarray | None], width: int, fill: float, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Arrays ``[T_i]`` as one ``[B, width]`` tensor; None if all are absent."""
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
    settings: LossSettings,
    counts: Denominators,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of the loss and of the metrics; see `rlpost.algorithms.losses.policy_loss`.

    Args:
        logprobs: ``[B, T]`` under the current policy, with gradient.
        micro: from `collate` of the same samples.
        samples: the rows.
        settings: of the loss.
        counts: over the global minibatch.

    Returns:
        A scalar to call backward on, also where there are no samples, and detached sums.
    """
    if not samples:
        return logprobs.sum() * 0.0, {}
    width, device = logprobs.shape[1], logprobs.device
    old = pad([s.old_logprobs for s in samples], width, 0.0, torch.float32, device)
    engine = pad([s.engine_logprobs for s in samples], width, 0.0, torch.float32, device)
    # on-policy with a single update the old policy is the current one: the ratio is 1 and only its gradient matters
    old = logprobs.detach() if old is None else old
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
        engine_logprobs=engine,
        ref_logprobs=pad([s.ref_logprobs for s in samples], width, 0.0, torch.float32, device),
    )
    loss, sums = policy_loss(inputs, settings, counts)
    tokens = max(counts.tokens, 1)
    sums["entropy"] = torch.where(micro.mask, -logprobs.detach(), 0.0).sum() / tokens
    if engine is not None:
        difference = torch.where(micro.mask, old.detach() - engine, 0.0).abs()
        sums["mismatch"] = difference.sum() / tokens
    return loss, sums
