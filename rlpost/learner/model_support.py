"""What a model's architecture does not allow the learner to do, with the reason in words."""

from __future__ import annotations

import inspect
import re
from typing import Any

from rlpost.errors import first_line
from rlpost.learner import trial_forward, varlen

_HEAD_EXTRAS = ("final_logit_softcapping", "logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""Configuration fields of operations on the logits after the head; 1, None and False mean no operation. Small logits
hardly show a cap, so it is not left to the trial."""

_LOCAL = re.compile(r"window|local|chunk|block_size|attention_types|attention_layers|every_n_layers|sparse_attention")
"""Configuration fields of attention that does not see everything before it, by a part of their names."""
_NOT_LOCAL = re.compile(r"chunk_size_feed_forward|chunk_size_lm_head|max_window_layers|local_experts|use_sliding")
"""Fields with such a name that say nothing about attention."""
_INDEXED = re.compile(r"index(er)?_(topk|budget|block)")
"""Configuration fields of attention to the best keys only, which are chosen by their places in the row."""


def packing_unsupported_reason(model: Any) -> str | None:
    """Why this model cannot compute several sequences in one row, separated by a block mask and positions.

    Args:
        model: a Hugging Face causal language model.

    Returns:
        The reason in words, None if there is none.
    """
    config = model.config.get_text_config()
    attention = getattr(config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager", varlen.NAME):
        return f"attention implementation {attention!r} takes no block mask"
    if not {"position_ids", "attention_mask"} <= set(inspect.signature(model.forward).parameters):
        return "its forward takes no position_ids"
    if getattr(model, "_is_stateful", False):
        return "it carries a state from token to token"
    if getattr(config, "alibi", False):
        return "its positions are biases of the attention (ALiBi)"
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if others:
        return f"it has layers of type {sorted(others)[0]!r}"
    # with layer_types, only layers of another type than full attention use a window
    if not getattr(config, "layer_types", None):
        for name, value in vars(config).items():
            unused = "sliding" in name and not getattr(config, "use_sliding_window", True)
            if value and not unused and _LOCAL.search(name) and not _NOT_LOCAL.search(name):
                return f"its attention sees a part of the tokens before it ({name}: {value})"
    indexed = next((name for name, value in vars(config).items() if value and _INDEXED.match(name)), None)
    if indexed:
        return f"its attention is to chosen keys only ({indexed}: {getattr(config, indexed)})"
    if not getattr(config, "is_causal", True):
        return "its attention is not causal"
    return _trial_reason(model)


def _trial_reason(model: Any) -> str | None:
    try:
        exact = trial_forward.packing_is_exact(model)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        return f"its forward takes no block mask ({first_line(error)})"
    return None if exact else "in a trial two completions in one row had other log-probabilities than alone"


def varlen_unsupported_reason(model: Any) -> str | None:
    """Why this model cannot use attention sequence by sequence (`rlpost.learner.varlen`).

    Args:
        model: a Hugging Face causal language model.

    Returns:
        The reason in words, None if there is none.
    """
    reason = packing_unsupported_reason(model)
    if reason is not None:
        return reason
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention layers take no implementation from outside"
    if model.config.get_text_config()._attn_implementation == "eager":
        return "its attention computes more than torch's scaled dot-product attention does"
    return None


def chunking_unsupported_reason(model: Any) -> str | None:
    """Why this model's logits are not just its head applied to the decoder's last hidden state.

    Args:
        model: a Hugging Face causal language model.

    Returns:
        The reason in words, None if there is none.
    """
    if not hasattr(model, "get_decoder") or not hasattr(model, "get_output_embeddings"):
        return "it does not name its decoder and head"
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if decoder is model or not hasattr(decoder, "get_input_embeddings"):
        return "it has no decoder of its own"
    if head is None:
        return "it has no head of its own"
    config = model.config.get_text_config()
    for name in _HEAD_EXTRAS:
        if getattr(config, name, None) not in (None, 1, 1.0, False) or hasattr(model, name):
            return f"its logits are changed behind the head ({name})"
    return None if trial_forward.head_is_separate(model) else "its logits are not its head's output"
