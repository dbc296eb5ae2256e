"""Tensors of a checkpoint that are not compared by their stored numbers, with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from rlpost.errors import DataError
from rlpost.sparsity.stored import Stored

HEAD = "lm_head.weight"
_PIECE = 2**22
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
_INTEGERS = re.compile(r"number format (I8|U8|I16|I32|I64|U16|U32|torch\.u?int\d+)$")
_PACKED = re.compile(r"\.(weight|qweight|weight_packed|qzeros|\w+_blocks)$")
_SCALES = ("weight_scale_inv", "weight_scale", "weight_scale_2", "scale_weight")


def quantised(formats: Mapping[str, str], left_out: Mapping[str, str]) -> dict[str, str]:
    """Tensors whose numbers mean nothing without others: scales of packed weights, and 8-bit weights with a scale.

    Args:
        formats: safetensors' names of the number formats by tensor name.
        left_out: tensors that cannot be read as numbers, name to reason.

    Returns:
        Name to reason.

    >>> quantised({"q.weight": "F8_E4M3", "q.weight_scale": "F32", "q.bias": "BF16"}, {})
    {'q.weight': 'quantised, with a scale', 'q.weight_scale': 'scale of quantised weights'}
    """
    packed = {n.rpartition(".")[0] for n, why in left_out.items() if _INTEGERS.match(why) and _PACKED.search(n)}
    found: dict[str, str] = {}
    for name, kind in formats.items():
        layer = name.rpartition(".")[0]
        scales = [one for part in _SCALES if (one := f"{layer}.{part}") in formats]
        if kind.startswith("F8_") and scales and name not in scales:
            found[name] = "quantised, with a scale"
            found |= dict.fromkeys(scales, "scale of quantised weights")
        # bitsandbytes stores X.weight.absmax next to a packed X.weight
        if name.partition(".weight.")[0] in packed or (layer in packed and not name.endswith(".bias")):
            found[name] = "part of a quantised layer"
    return found


def tied_head(place: Path, tensors: dict[str, Stored], left_out: dict[str, str]) -> dict[str, Stored]:
    """Move an output head that is the embeddings out of the tensors, as it would count twice.

    What counts is the values: a head that differs from the embeddings is compared although the configuration says
    ``tie_word_embeddings``, as merging an adapter leaves such, and transformers 5 loads it untied.

    Args:
        place: the checkpoint's folder or file.
        tensors: its tensors; the head is removed if it is tied.
        left_out: gets the reason then.

    Returns:
        The head's name and values where it is tied, also where the files hold none.

    Raises:
        DataError: for a configuration that cannot be read, or a file that is cut short.
    """
    config = place / "config.json"
    if not place.is_dir() or not config.is_file():
        return {}
    try:
        settings = json.loads(config.read_text())
        tied = settings.get("tie_word_embeddings", (settings.get("text_config") or {}).get("tie_word_embeddings"))
    except (ValueError, AttributeError):
        raise DataError(f"{config}: not a model's configuration; copy it again") from None
    heads = [name for name in tensors if name == HEAD or name.endswith(f".{HEAD}")]
    rows = [one for name, one in tensors.items() if _EMBEDDINGS.search(name)]
    if not tied:
        return {}
    if not heads:
        return {HEAD: replace(rows[0], name=HEAD)} if len(rows) == 1 else {}
    head = tensors[heads[0]]
    if not any(_same(head, one) for one in rows):
        return {}
    del tensors[heads[0]]
    left_out[heads[0]] = "tied to the embeddings"
    return {heads[0]: head}


def _same(one: Stored, other: Stored) -> bool:
    """Whether two tensors hold the same values."""
    if one.shape != other.shape:
        return False
    spans = ((at, min(at + _PIECE, one.size)) for at in range(0, one.size, _PIECE))
    return all(torch.equal(one.read(*span).float(), other.read(*span).float()) for span in spans)
