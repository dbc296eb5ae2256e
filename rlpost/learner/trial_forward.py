"""Forward passes of a few tokens right after loading, which show what a model's configuration does not tell.

A comparison counts as different only if every compared position is, because in bfloat16 the router of a mixture of
experts may choose otherwise at one of them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.errors import ModelError
from rlpost.learner.collate import visible
from rlpost.learner.varlen import varlen_sequences

_PROMPT, _BRANCH = 3, 4
"""Tokens of the trial's prompt, and of each of the two completions that follow it."""
_SEGMENTS = np.zeros(_PROMPT + 2 * _BRANCH, np.int64)
_BRANCHES = np.repeat([0, 1, 2], [_PROMPT, _BRANCH, _BRANCH])


def prepare_attention(model: Any) -> None:
    """Have a model compute attention eagerly if torch's SDPA would leave a part of it out.

    transformers passes whatever an architecture's attention needs to any implementation, and its SDPA drops the
    arguments that it does not know without a word: gemma2's ``softcap``, for example. A model whose layers pass such
    an argument is set to its own eager attention, which computes it.

    Args:
        model: a Hugging Face causal language model, in evaluation mode as it is loaded.

    Raises:
        ModelError: if a forward pass changes the model's weights, or tokens depend on later ones.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    ids = _trial_ids(model)
    with passed_to_attention() as passed:
        whole = _logits(model, ids)
    # rwkv divides weights in place in evaluation mode, which would be published as the policy
    changed = [name for name, parameter in model.named_parameters() if parameter._version != versions[name]]
    if changed:
        raise ModelError(
            f"model.path: {type(model).__name__} changes its weights in a forward pass ({changed[0]}), so what would "
            "be published is not what was trained; use another architecture"
        )
    if differ(_logits(model, ids[:, :-_BRANCH]), whole[:, :-_BRANCH]):
        raise ModelError(
            f"model.path: in this {type(model).__name__} a token's probability depends on the tokens after it; use a "
            "causal language model (of the kind of BERT, one with is_decoder: true)"
        )
    if passed - set(inspect.signature(sdpa_attention_forward).parameters):
        model.set_attn_implementation("eager")


def head_is_separate(model: Any) -> bool:
    """Whether a model's logits are its head applied to the last hidden states of its decoder."""
    ids = _trial_ids(model)
    with torch.no_grad():
        decoded = model.get_decoder()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        hidden = getattr(decoded, "last_hidden_state", None)
        if hidden is None:
            return False
        return not differ(model.get_output_embeddings()(hidden), _logits(model, ids), exact=True)


def packing_is_exact(model: Any, varlen: bool = False) -> bool:
    """Whether two completions in one row after a prompt that they share have the log-probabilities they have alone.

    Args:
        model: a Hugging Face causal language model whose forward takes ``position_ids`` and a block mask.
        varlen: keep the completions apart by variable-length attention instead of by a block mask.
    """
    ids = _trial_ids(model)
    second = torch.cat([ids[:, :_PROMPT], ids[:, -_BRANCH:]], dim=1)
    positions = np.concatenate([np.arange(_PROMPT), *[_PROMPT + np.arange(_BRANCH)] * 2])
    options: dict[str, Any] = {"position_ids": torch.from_numpy(positions)[None].to(ids.device)}
    seen = torch.ones(1, 1, 1, 1, dtype=torch.bool) if varlen else torch.from_numpy(_block_mask())[None]
    if varlen:
        options["varlen_sequences"] = varlen_sequences(_SEGMENTS, _BRANCHES, ids.device)
    together = _logits(model, ids, additive_mask(seen.to(ids.device), model.dtype), **options)
    return not differ(together[:, -_BRANCH:], _logits(model, second)[:, -_BRANCH:])


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean block mask as an additive one.

    Eager attention accepts no other, and torch's SDPA would convert a boolean mask again in every layer (measured: a
    fifth to a third of the attention's time on CPU).
    """
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def differ(found: Tensor, expected: Tensor, exact: bool = False) -> bool:
    """Whether logits ``[1, L, V]`` differ at every position by more than rounding of their dtype explains.

    Args:
        found: logits.
        expected: logits.
        exact: both come from the same operations on tensors of the same shape.
    """
    rounding = torch.finfo(expected.dtype).eps
    tolerance = 2 * rounding + 1e-5 if exact else 8 * rounding + 1e-3
    apart = (found.float() - expected.float()).abs().amax(-1)
    return bool((apart > tolerance * expected.float().abs().amax(-1)).all())


@contextmanager
def passed_to_attention() -> Iterator[set[str]]:
    """A block that collects the arguments given to transformers' SDPA that the layer's own eager attention names."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    passed: set[str] = set()

    def record(module: Any, *tensors: Any, **options: Any) -> Any:
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        named = set(inspect.signature(eager).parameters) if eager else set[str]()
        passed.update(name for name in named if options.get(name) is not None)
        return sdpa_attention_forward(module, *tensors, **options)

    AttentionInterface.register("sdpa", record)
    try:
        yield passed
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)


def _trial_ids(model: Any) -> Tensor:
    """``[1, L]`` different ids from the middle of the vocabulary, where there are no special tokens."""
    rows = model.get_input_embeddings().weight.shape[0]
    return torch.linspace(rows // 4, rows * 3 // 4, len(_BRANCHES)).long()[None].to(model.device)


def _block_mask() -> np.ndarray:
    return visible(_SEGMENTS[None], _BRANCHES[None])


def _logits(model: Any, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    with torch.no_grad():
        seen = torch.ones_like(ids) if mask is None else mask
        return model(input_ids=ids, attention_mask=seen, use_cache=False, **options).logits
