"""A forward pass of a few tokens right after loading, which shows what a model's configuration does not tell."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rlpost.errors import ModelError

_TOKENS = 3
"""Length of the trial: long enough for attention to more than one key."""


def prepare_attention(model: Any) -> None:
    """Have a model compute attention eagerly if torch's SDPA would leave a part of it out.

    transformers passes whatever an architecture's attention needs to any implementation, and its SDPA drops the
    arguments that it does not know without a word: gemma2's ``softcap``, for example. A model whose layers pass such
    an argument is set to its own eager attention, which computes it.

    Args:
        model: a Hugging Face causal language model, in evaluation mode as it is loaded.

    Raises:
        ModelError: if a forward pass changes the model's weights.
    """
    if _dropped_by_sdpa(model):
        model.set_attn_implementation("eager")


def _dropped_by_sdpa(model: Any) -> set[str]:
    """Names of the arguments that this model's attention layers pass and SDPA ignores."""
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    with _passed_to_sdpa() as passed, torch.no_grad():
        ids = torch.ones(1, _TOKENS, dtype=torch.long, device=model.device)
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    # rwkv divides weights in place in evaluation mode, which would be published as the policy
    changed = [name for name, parameter in model.named_parameters() if parameter._version != versions[name]]
    if changed:
        raise ModelError(
            f"model.path: {type(model).__name__} changes its weights in a forward pass ({changed[0]}), so what would "
            "be published is not what was trained; use another architecture"
        )
    return passed


@contextmanager
def _passed_to_sdpa() -> Iterator[set[str]]:
    """A block that collects the arguments given to transformers' SDPA which the layer's eager attention takes by name
    and SDPA does not.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    known = set(inspect.signature(sdpa_attention_forward).parameters)
    passed: set[str] = set()

    def record(module: Any, *tensors: Any, **options: Any) -> Any:
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        taken = set(inspect.signature(eager).parameters) - known if eager else set()
        passed.update(name for name in taken if options.get(name) is not None)
        return sdpa_attention_forward(module, *tensors, **options)

    AttentionInterface.register("sdpa", record)
    try:
        yield passed
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)
