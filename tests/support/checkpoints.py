"""Writes small checkpoints as Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def write(folder: Path, tensors: Mapping[str, Tensor], shards: int = 1, tied: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    names = list(tensors)
    index: dict[str, str] = {}
    for k in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{k + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name].contiguous() for name in names[k::shards]}
        save_file(part, str(folder / file))
        index |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def model(seed: int = 0, layers: int = 2, width: int = 48, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (96, width), "lm_head.weight": (96, width), "model.norm.weight": (width,)}
    for k in range(layers):
        shapes[f"model.layers.{k}.self_attn.q_proj.weight"] = (width, width)
        shapes[f"model.layers.{k}.mlp.up_proj.weight"] = (3 * width, width)
        shapes[f"model.layers.{k}.mlp.up_proj.bias"] = (3 * width,)
    return {name: (0.02 * torch.randn(shape, generator=source)).to(dtype) for name, shape in shapes.items()}


def next_up(tensor: Tensor) -> Tensor:
    """The next bfloat16 value away from zero."""
    return (tensor.view(torch.int16) + 1).view(torch.bfloat16)
