"""Variable-length attention: packed sequences attend separately, without padding and without a mask.

A prompt that several completions share gives its keys and values to each of them, so its projections and feed-forward
layers are computed once. On GPU in half precision this is one call of torch's variable-length FlashAttention; elsewhere
it is one call of torch's scaled dot-product attention per sequence.
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
"""The attention's name in transformers' registry."""


@dataclass(frozen=True, slots=True)
class VarlenSequences:
    """n runs of queries in one row, and the keys that each attends to, of which the last are the queries' own.

    Attributes:
        cu_seqlens_q: ``[n + 1]`` int32, cumulative lengths of the runs of queries.
        cu_seqlens_k: ``[n + 1]`` int32, cumulative lengths of their keys in ``key_positions``.
        key_positions: ``[K]`` int64, positions in the row of the attended keys, run after run.
        max_seqlen_q: largest number of queries in a run.
        max_seqlen_k: largest number of keys in a run.
        bounds: (first query, end, first key, end) of each run as Python integers, because reading the tensors would
            synchronize with the device.
    """

    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    key_positions: Tensor
    max_seqlen_q: int
    max_seqlen_k: int
    bounds: tuple[tuple[int, int, int, int], ...]


def varlen_sequences(sequence_ids: np.ndarray, branch: np.ndarray, device: torch.device) -> VarlenSequences:
    """Find the runs of a row.

    Args:
        sequence_ids: ``[L]`` number of the sequence each token belongs to, ascending.
        branch: ``[L]`` 0 for the prompt, 1, 2, … for the completions that follow it.
        device: device of the tensors.
    """
    starts = np.flatnonzero(np.diff(sequence_ids, prepend=-1) | np.diff(branch, prepend=-1))
    ends = np.append(starts[1:], len(sequence_ids))
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
    queries, keys = np.append(starts, len(sequence_ids)), np.concatenate([[0], np.cumsum(sizes)])
    bounds = tuple(zip(starts.tolist(), ends.tolist(), keys[:-1].tolist(), keys[1:].tolist(), strict=True))
    return VarlenSequences(
        cu_seqlens_q=torch.from_numpy(queries.astype(np.int32)).to(device),
        cu_seqlens_k=torch.from_numpy(keys.astype(np.int32)).to(device),
        key_positions=torch.from_numpy(np.concatenate(seen)).to(device),
        max_seqlen_q=int((ends - starts).max()),
        max_seqlen_k=max(sizes),
        bounds=bounds,
    )


def use_varlen_attention(model: Any) -> None:
    """Have a Hugging Face model use this attention if it is given `VarlenSequences`, and SDPA otherwise."""
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
    varlen_sequences: VarlenSequences | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    Args:
        module: the attention layer.
        query: ``[1, H, L, D]``.
        key: ``[1, H / groups, L, D]``.
        value: ``[1, H / groups, L, D]``.
        attention_mask: ignored if ``varlen_sequences`` is given.
        dropout: ignored if ``varlen_sequences`` is given; models are trained without dropout.
        scaling: factor of the scores; None means 1 / √D.
        varlen_sequences: the row's sequences; None calls transformers' SDPA attention.
        options: passed on to transformers' SDPA attention.

    Returns:
        The attention output ``[1, L, H, D]``, and None for the attention weights.
    """
    if varlen_sequences is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    seen_keys, seen_values = key[:, :, varlen_sequences.key_positions], value[:, :, varlen_sequences.key_positions]
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _flash(query, seen_keys, seen_values, scaling, varlen_sequences), None
    return _one_by_one(query, seen_keys, seen_values, scaling, varlen_sequences.bounds), None


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, bounds: Sequence[tuple[int, int, int, int]]
) -> Tensor:
    gqa = query.shape[1] != key.shape[1]
    parts = []
    for first, last, begin, end in bounds:
        asked, known = last - first, end - begin
        # torch's is_causal aligns queries with the first keys; after a prompt they belong to the last
        mask = None if asked == known else _after_prompt(asked, known, query.device)
        parts.append(
            scaled_dot_product_attention(
                query[:, :, first:last], key[:, :, begin:end], value[:, :, begin:end],
                attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=gqa,
            )
        )  # fmt: skip
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _after_prompt(asked: int, known: int, device: torch.device) -> Tensor:
    """``[asked, known]`` bool: query i attends to all keys up to its own, which is ``known - asked + i``."""
    return torch.ones(asked, known, dtype=torch.bool, device=device).tril(known - asked)


def _flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, runs: VarlenSequences) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    groups, options = q.shape[1] // k.shape[1], dict[str, Any]()
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        options["enable_gqa"] = groups > 1
    elif groups > 1:  # torch before 2.12 requires as many key heads as query heads
        k, v = (tensor.repeat_interleave(groups, dim=1) for tensor in (k, v))
    cumulative, longest = (runs.cu_seqlens_q, runs.cu_seqlens_k), (runs.max_seqlen_q, runs.max_seqlen_k)
    found = varlen_attn(q, k, v, *cumulative, *longest, scale=scaling, window_size=(-1, 0), **options)
    assert isinstance(found, Tensor)
    return found[None]
