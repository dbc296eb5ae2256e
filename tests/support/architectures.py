"""Every causal language model of the installed transformers, built small from the fields of its configuration class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROWS = 96
"""Rows of the embeddings: more than the test tokenizer has tokens."""
LAYERS, WINDOW = 4, 4
MOST = 5_000_000
"""Most parameters of a model that counts as small."""

# the first pattern that matches a field's whole name gives its value
_SIZES: tuple[tuple[str, int], ...] = (
    (r"(src_|tgt_|decoder_|per_layer_|)?vocab_size|vocab_size_per_layer_input|emb_vocab_size", ROWS),
    (r"(max_|n_)?positions?_embeddings|max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length"
     r"|model_max_length|max_target_positions|original_max_position_embeddings", 128),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads", 8),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"moe_layer_end_index", LAYERS - 1),
    (r"num_kv_shared_layers", 0),
    (r"(num_)?(hidden_|decoder_|encoder_)?layers|n_layers?|num_blocks|num_layers_per_stack", LAYERS),
    (r".*(kv_heads|key_value_heads|num_query_groups|multi_query_group_num)", 2),
    (r"linear_num_key_heads|linear_num_value_heads|linear_num_heads|swa_num_attention_heads", 4),
    (r".*attention_heads|n_heads?|num_heads", 4),
    # few heads have the same score, zero, for many keys: which of them are chosen is then a matter of rounding
    (r"index_n_heads", 16),
    (r"index_block_size|index_topk_blocks", 2),
    (r"qk_rope_head_dim", 8),
    (r"qk_nope_head_dim", 8),
    (r"qk_head_dim", 16),
    (r"v_head_dim|head_dim|d_head|dim_head|kv_channels|attention_head_size|swa_head_dim|index_head_dim"
     r"|linear_(key_|value_)?head_dim|global_head_dim", 16),
    (r"query_pre_attn_scalar", 16),
    (r".*lora_rank|.*_rank|adapter_rank|hc_lowrank|d_rel", 16),
    (r"moe_intermediate_size|.*expert_intermediate_size|expert_ffn_hidden_size", 32),
    (r".*intermediate_size(_mlp)?|.*ffn_(hidden_)?(dim|size)|ffn_hidden_size|dff|dim_ff|d_inner|feed_forward_size"
     r"|n_inner|shared_intermediate_size", 128),
    (r"hidden_size_per_layer_input|ple_embed_dim", 16),
    (r"attention_hidden_size|lru_width|embedding_dim|emb_dim", 64),
    (r".*hidden_size|d_model|n_embd|embedding_size|.*embed.*_dim|dim_model_base|.*embedding_size", 64),
    (r"num_experts_per_tok(en)?|moe_k|moe_topk|n_activated_experts|num_shared_experts|n_shared_experts"
     r"|moe_num_shared_experts", 2),
    (r".*(num_|n_routed_|local_|n_)experts|moe_num_experts|zero_expert_num", 4),
    (r"n_group|topk_group|n_groups|mamba_n_?groups|o_groups|num_expert_group", 1),
    (r"ssm_state_size|state_size|mamba_d_state", 16),
    (r"mamba_d_ssm", 128),
    (r"mamba_d_head|mamba_head_?dim|attention_head_dim", 16),
    (r"time_step_rank|mamba_dt_rank", 8),
    (r"index_topk", 8),
    (r"rotary_dim", 8),
    (r"sliding_window|window_size|sliding_window_size|attention_window_size|local_attention|keep_window_size"
     r"|attention_chunk_size", WINDOW),
    (r"(mamba_)?chunk_size", 16),
    (r"n?gram_vocab_size_base", 64),
)  # fmt: skip
_WIDTHS = (16, 64)
"""Sizes above that are widths of heads and layers."""
_OFTEN_NONE = re.compile(r"window|^head_dim$|^num_key_value_heads$")
"""Fields that are made small although they are None."""
_NOISE = re.compile(r"drop|jitter")


_OTHERWISE: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    # it refuses noise in attention
    "diffllama": {"attention_dropout": 0.0},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": {"intermediate_size": 128, "activation_sparsity_pattern": [0.9, 0.9, 0.0, 0.0]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "reformer": {"axial_pos_embds_dim": (32, 32), "axial_pos_shape": (8, 16)},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_head_dim": 32, "attention_hidden_size": 128, "n_mamba_heads": 2},
    "zamba2": {"attention_head_dim": 32, "attention_hidden_size": 128, "kv_channels": 16, "hybrid_layer_ids": [1, 3]},
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields that follow no general rule, by type of model."""


def shrunk(config_class: type, widened: int = 1) -> Any:
    """A small configuration of a class, with noise in every field that has any.

    Args:
        config_class: a class of transformers' configurations.
        widened: factor of the widths of layers and heads; vLLM's attention on CPU needs 2, for heads of 32.
    """
    return config_class(**_fields(config_class(), widened))


def _fields(config: Any, widened: int) -> dict[str, Any]:
    """The fields to give a configuration class."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        if name == "is_decoder":
            found[name] = True
        if name.startswith("_") or isinstance(value, bool):
            continue
        if hasattr(value, "to_dict"):
            found[name] = {"model_type": value.model_type, **_fields(value, widened)}
        elif name in ("bos_token_id", "pad_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id"):
            found[name] = {"bos_token_id": 2, "pad_token_id": 0}.get(name, 1)
        elif isinstance(value, float) and _NOISE.search(name):
            found[name] = 0.3
        elif isinstance(value, int) or value is None:
            size = next((size for pattern, size in _SIZES if re.fullmatch(pattern, name)), None)
            if size is not None and (value is not None or _OFTEN_NONE.search(name)):
                found[name] = size * widened if size in _WIDTHS else size
        elif isinstance(value, list) and len(value) >= 2 and name.endswith(("types", "type", "layers", "ids")):
            found[name] = varied(value)
    if "qk_rope_head_dim" in found:  # multi-head latent attention
        found |= {"head_dim": found["qk_rope_head_dim"], "num_key_value_heads": found["num_attention_heads"]}
        found = {name: value for name, value in found.items() if hasattr(config, name)}
    return found | _OTHERWISE.get(config.model_type, {})


def varied(kinds: list[Any]) -> list[Any]:
    """A list for LAYERS layers that has every kind of layer, as far as there is room."""
    different = list(dict.fromkeys(map(str, kinds)))
    first = [kinds[[*map(str, kinds)].index(kind)] for kind in different][:LAYERS]
    return (first * LAYERS)[:LAYERS]


def randomise(model: nn.Module, embeddings: float, seed: int = 0) -> None:
    """Give matrices entries of the size 1/√(inputs): as transformers initialises them, layers hardly change anything.

    Args:
        model: changed in place.
        embeddings: size of the embeddings' entries. Large ones, tied to the head, make the next token nearly certain.
        seed: seed of the entries.
    """
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=source)
            if "embed" in name or "wte" in name or "wpe" in name:
                parameter.copy_(embeddings * noise)
            elif parameter.dim() >= 2:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                parameter.add_(0.1 * noise)


def build(config: Any, folder: Path, embeddings: float = 0.25) -> None:
    """Write a model folder, without a tokenizer."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST:
        raise ValueError(f"{size} parameters: a field that is not made small")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, embeddings)
    model.save_pretrained(str(folder))
