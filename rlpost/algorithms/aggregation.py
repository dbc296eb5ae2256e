"""Weights that turn per-token losses into one number.

Every aggregation is loss = Σ_t w_t ℓ_t with weights that depend on the completion's own mask and on counts over the
*global* minibatch. The caller computes these counts once, so that micro-batches, padding, order and the number of
learner ranks cannot change the gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlpost.algorithms.masks import check_shapes, span_counts
from rlpost.types import Denominators

Aggregation = Literal["token", "sequence", "sequence_sum", "span", "constant"]


def token_weights(mask: Tensor, span_ids: Tensor, kind: Aggregation, counts: Denominators) -> Tensor:
    r"""The weight of every token.

    With |o_i| trained tokens in completion i and the global counts of `Denominators`:

    * ``token``: 1 / tokens (DAPO, Yu et al. 2025, eq. 12)
    * ``sequence``: 1 / (|o_i| · sequences) (GRPO, Shao et al. 2024, eq. 3)
    * ``sequence_sum``: 1 / sequences (REINFORCE, RLOO: the completion is one action)
    * ``span``: 1 / (|span| · spans) (Rank-GRPO, Zhu et al. 2025, eq. 6: each rank weighs the same)
    * ``constant``: 1 / (max_tokens · sequences) (Dr. GRPO, Liu et al. 2025, section 3.2)

    The same means elsewhere, by TRL's ``loss_type`` and verl's ``loss_agg_mode``, where they differ from these:

    * ``token``: TRL's ``dapo`` and ``cispo``, verl's ``token-mean``. TRL's ``bnpo``, and verl's where it is not given
      the counts of the whole batch, are the mean over each micro-batch's tokens, then over micro-batches: a token
      weighs more in a micro-batch of short completions. TRL counts tokens of the generation batch and rescales to one
      update; completions of unequal length that fall into several updates make that another number than the update's
      own count.
    * ``sequence``: TRL's ``grpo``, verl's ``seq-mean-token-mean``: equal, where micro-batches hold equally many
      completions; TRL counts a completion without trained tokens, here ``sequences`` does not.
    * ``sequence_sum``: TRL's ``luspo`` at token level, verl's ``seq-mean-token-sum``: the same.
    * ``span``: no counterpart. The paper divides by G·N, missing ranks included
      (``algorithm.spans_per_completion: N``); by default only spans that exist count; the paper's released code takes
      TRL's ``bnpo``.
    * ``constant``: TRL's ``dr_grpo`` (``max_completion_length``), verl's ``seq-mean-token-sum-norm`` (by default the
      width of the padded batch, which changes from batch to batch).

    Args:
        mask: ``[B, T]`` bool, trained tokens; each row holds a whole completion.
        span_ids: ``[B, T]`` int64; only read for ``span``.
        kind: aggregation, one of the names above.
        counts: tokens, sequences and spans of the global minibatch.

    Returns:
        ``[B, T]`` float32, 0 where masked (and, for ``span``, outside every span).
    """
    check_shapes(mask, span_ids)
    on = mask.float()
    if kind == "token":
        return on / max(counts.tokens, 1)
    if kind == "sequence":
        return on / mask.sum(1, keepdim=True).clamp(min=1) / max(counts.sequences, 1)
    if kind == "sequence_sum":
        return on / max(counts.sequences, 1)
    if kind == "constant":
        return on / (max(counts.sequences, 1) * max(counts.max_tokens, 1))
    size = span_counts(mask, span_ids)
    return torch.where(size > 0, 1.0 / size.clamp(min=1), 0.0) / max(counts.spans, 1)
