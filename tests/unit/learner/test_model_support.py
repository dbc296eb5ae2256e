"""Which models may run packed and chunked. Not covered: architectures that transformers does not ship."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.model_support import chunking_unsupported_reason, packing_unsupported_reason

SMALL = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def made(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **more})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3", "Olmo2"])
def test_full_attention_with_positions_runs_packed_and_chunked(kind: str) -> None:
    model = made(kind)
    assert packing_unsupported_reason(model) is None
    assert chunking_unsupported_reason(model) is None


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("Mistral", {"sliding_window": 8}, "part of the tokens before it (sliding_window: 8)"),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "'sliding_attention'"),
        ("Llama", {"attn_implementation": "flex_attention"}, "'flex_attention' takes no block mask"),
        ("Bloom", {"n_head": 2, "n_layer": 1}, "position_ids"),
        ("Mamba", {"state_size": 4}, "attention|position_ids|state"),
        ("Gemma2", {"head_dim": 16}, "'sliding_attention'"),
    ],
)
def test_other_attention_runs_padded_and_says_why(kind: str, more: dict[str, Any], reason: str) -> None:
    more = dict(more)
    attention = more.pop("attn_implementation", None)
    model = made(kind, **more)
    if attention:
        model.config._attn_implementation = attention
    found = packing_unsupported_reason(model)
    assert found is not None
    assert any(part in found for part in reason.split("|")), found


@pytest.mark.parametrize(
    ("kind", "more", "name"),
    [
        ("Gemma2", {"head_dim": 16}, "final_logit_softcapping"),
        ("Granite", {"logits_scaling": 4.0}, "logits_scaling"),
        ("Cohere", {}, "logit_scale"),
    ],
)
def test_logits_that_are_more_than_the_head_are_not_taken_in_chunks(kind: str, more: dict[str, Any], name: str) -> None:
    model = made(kind, **more)
    assert name in (chunking_unsupported_reason(model) or "")
    ids, index = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0]]), torch.tensor([1, 2, 4, 5])
    seen, tokens = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]), torch.tensor([5, 6, 8, 9])
    with torch.no_grad():
        found = LogprobModel(model)(ids, seen, index, tokens, chunks=4)
        logits = model(input_ids=ids, attention_mask=seen).logits.flatten(0, 1)[index]
    torch.testing.assert_close(found, logits.log_softmax(-1)[torch.arange(4), tokens])
