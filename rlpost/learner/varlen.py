"""Attention over sequences of several lengths side by side, each by itself: no padding, and no mask of line by line.

A prompt that several completions share is one stretch of keys for each of them, so its projections and its feed-forward
layers are computed once. On GPU in half precision torch's variable-length FlashAttention does it in one call; elsewhere
each stretch is a call of torch's own attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "rlpost_varlen"
"""Under which transformers knows it."""


@dataclass(frozen=True, slots=True)
class Stretches:
    """n runs of queries in one line, and what each of them sees: all of its keys up to its own place at their end.

    Attributes:
        queries: ``[n + 1]`` int32, where each run of queries begins and the last ends.
        keys: ``[n + 1]`` int32, likewise in ``seen``.
        seen: ``[K]`` int64, the positions whose keys are seen, run after run; the last of each are its queries' own.
        longest: most queries and most keys of a run.
        bounds: the same as ``queries`` and ``keys``, as numbers: reading them from a device would wait for it.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor
    longest: tuple[int, int]
    bounds: tuple[tuple[int, int, int, int], ...]


def stretches(segment: np.ndarray, branch: np.ndarray, device: torch.device) -> Stretches:
    """The runs of a line.

    Args:
        segment: ``[L]`` number of the segment, ascending.
        branch: ``[L]`` 0 for the prompt, 1, 2, … for the completions behind it.
        device: of the tensors.
    """
    starts = np.flatnonzero(np.diff(segment, prepend=-1) | np.diff(branch, prepend=-1))
    ends = np.append(starts[1:], len(segment))
    seen: list[np.ndarray] = []
    prompt = np.zeros(0, np.int64)
    for start, end in zip(starts, ends, strict=True):
        own = np.arange(start, end)
        if branch[start] == 0:
            prompt = own
            seen.append(own)
        else:
            seen.append(np.concatenate([prompt, own]))
    sizes = [len(keys) for keys in seen]
    queries, keys = np.append(starts, len(segment)), np.concatenate([[0], np.cumsum(sizes)])
    bounds = tuple(zip(starts.tolist(), ends.tolist(), keys[:-1].tolist(), keys[1:].tolist(), strict=True))
    return Stretches(
        queries=torch.from_numpy(queries.astype(np.int32)).to(device),
        keys=torch.from_numpy(keys.astype(np.int32)).to(device),
        seen=torch.from_numpy(np.concatenate(seen)).to(device),
        longest=(int((ends - starts).max()), max(sizes)),
        bounds=bounds,
    )


def use(model: Any) -> None:
    """Have a Hugging Face model attend this way wherever it is given stretches, and by torch's attention elsewhere."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    stretches: Stretches | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    Args:
        module: the attention layer.
        query: ``[1, H, L, D]``.
        key: ``[1, H / groups, L, D]``.
        value: as ``key``.
        attention_mask: of no account where there are stretches.
        dropout: none is ever used.
        scaling: of the scores; None: 1 / √D.
        stretches: of the line; None: as transformers' own.
        options: for transformers' own.

    Returns:
        ``[1, L, H, D]``, and no weights.
    """
    if stretches is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    seen_keys, seen_values = key[:, :, stretches.seen], value[:, :, stretches.seen]
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _flash(query, seen_keys, seen_values, scaling, stretches), None
    return _one_by_one(query, seen_keys, seen_values, scaling, stretches.bounds), None


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, bounds: Sequence[tuple[int, int, int, int]]
) -> Tensor:
    gqa = query.shape[1] != key.shape[1]
    parts = []
    for first, last, begin, end in bounds:
        asked, known = last - first, end - begin
        # torch's causal flag lines queries up with the first keys; behind a prompt they belong to the last
        mask = None if asked == known else _behind(asked, known, query.device)
        parts.append(
            scaled_dot_product_attention(
                query[:, :, first:last], key[:, :, begin:end], value[:, :, begin:end],
                attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=gqa,
            )
        )  # fmt: skip
    return torch.cat(parts, dim=2).transpose(1, 2)


def _behind(asked: int, known: int, device: torch.device) -> Tensor:
    """``[asked, known]`` bool: query i sees all keys up to its own, which is ``known - asked + i``."""
    return torch.ones(asked, known, dtype=torch.bool, device=device).tril(known - asked)


def _flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, runs: Stretches) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    groups, options = q.shape[1] // k.shape[1], dict[str, Any]()
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        options["enable_gqa"] = groups > 1
    elif groups > 1:  # torch before 2.12 wants as many heads of keys as of queries
        k, v = (tensor.repeat_interleave(groups, dim=1) for tensor in (k, v))
    ends, most = (runs.queries, runs.keys), runs.longest
    found = varlen_attn(q, k, v, *ends, most[0], most[1], scale=scaling, window_size=(-1, 0), **options)
    assert isinstance(found, Tensor)
    return found[None]
