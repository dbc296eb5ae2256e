"""Small untrained models of the kinds that users adapt, in memory."""

from __future__ import annotations

from typing import Any

import torch

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen_tied": ("Qwen2Config", SIZES | {"tie_word_embeddings": True}),
    "llama_untied": ("LlamaConfig", SIZES | {"tie_word_embeddings": False, "attention_bias": True}),
    "gemma_tied": ("Gemma3TextConfig", SIZES | {"head_dim": 8}),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "phi3": ("Phi3Config", SIZES | {"tie_word_embeddings": False}),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 4, "tie_word_embeddings": False}),
    "qwen_moe": (
        "Qwen3MoeConfig",
        SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8},
    ),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": 96,
            "hidden_size": 32,
            "word_embed_proj_dim": 16,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
}


def small(kind: str, dtype: str = "float32", seed: int = 0) -> Any:
    """A model of one of `KINDS`, with entries large enough that a change shows."""
    import transformers

    name, values = KINDS[kind]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model.to(getattr(torch, dtype)).eval()
