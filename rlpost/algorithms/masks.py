"""Spans and masks of padded completions ``[B, T]``: which tokens are trained, and which belong together.

``mask [B, T]`` is bool and true on trained tokens. ``span_ids [B, T]`` is int64: the span a token belongs to, -1 for
none; ids count from 0 within each completion. Padding has ``mask`` false and ``span_ids`` -1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_shapes(mask: Tensor, *others: Tensor) -> None:
    """Raise ValueError unless ``mask`` is bool ``[B, T]`` and every other tensor has its shape."""
    if mask.dtype != torch.bool or mask.dim() != 2:
        raise ValueError(f"mask must be bool [B, T], got {mask.dtype} {tuple(mask.shape)}")
    for tensor in others:
        if tensor.shape != mask.shape:
            raise ValueError(f"expected shape {tuple(mask.shape)} like the mask, got {tuple(tensor.shape)}")


def span_counts(mask: Tensor, span_ids: Tensor) -> Tensor:
    """Number of trained tokens in each token's span, ``[B, T]`` int64; 0 outside every span."""
    return _scatter_back(mask.long(), mask, span_ids)


def span_sums(values: Tensor, mask: Tensor, span_ids: Tensor) -> Tensor:
    """Sum of ``values`` over the trained tokens of each token's span, ``[B, T]``; 0 outside every span."""
    return _scatter_back(values.masked_fill(~mask, 0), mask, span_ids)


def whole(mask: Tensor) -> Tensor:
    """Span ids that make each completion one span: 0 on trained tokens, -1 elsewhere."""
    return torch.where(mask, 0, -1)


def _scatter_back(values: Tensor, mask: Tensor, span_ids: Tensor) -> Tensor:
    member = mask & (span_ids >= 0)
    # slot 0 collects everything outside the spans and is cleared before reading back
    slots = torch.where(member, span_ids + 1, 0)
    width = int(slots.max()) + 1 if slots.numel() else 1
    totals = values.new_zeros(values.shape[0], width).scatter_add(1, slots, values)
    totals = torch.cat([totals.new_zeros(totals.shape[0], 1), totals[:, 1:]], dim=1)
    return totals.gather(1, slots)
