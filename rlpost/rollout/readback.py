"""What a vLLM model holds, in Hugging Face names.

vLLM stacks some matrices (``qkv_proj`` holds the rows of q, k and v) and pads the vocabulary. Undoing both from the
published shapes, and not through vLLM's own loaders, makes the comparison independent of what it checks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def hugging_face_views(
    parameters: Mapping[str, Tensor],
    packed: Mapping[str, list[str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor | None]:
    """Views of the engine's parameters that correspond to published tensors.

    Args:
        parameters: the engine's own parameters by name.
        packed: the model's ``packed_modules_mapping``: fused module to its parts, in the order of their rows.
        shapes: published names and shapes.

    Returns:
        For each published name the matching view, None where the engine holds nothing of that name and shape.
    """
    return {name: _view(name, shape, parameters, packed, shapes) for name, shape in shapes.items()}


def _view(
    name: str,
    shape: tuple[int, ...],
    parameters: Mapping[str, Tensor],
    packed: Mapping[str, list[str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Tensor | None:
    if name in parameters:
        return _rows(parameters[name], 0, shape)
    for fused, parts in packed.items():
        for position, part in enumerate(parts):
            before, found, after = name.rpartition(f".{part}.")
            target = f"{before}.{fused}.{after}"
            if found and target in parameters:
                earlier = [f"{before}.{other}.{after}" for other in parts[:position]]
                if any(other not in shapes for other in earlier):
                    return None
                return _rows(parameters[target], sum(shapes[other][0] for other in earlier), shape)
    return None


def _rows(tensor: Tensor, start: int, shape: tuple[int, ...]) -> Tensor | None:
    if not shape:
        return tensor.data if tensor.dim() == 0 else None
    if tensor.dim() != len(shape) or tensor.shape[0] < start + shape[0]:
        return None
    view = tensor.data[start : start + shape[0]]
    return view if view.shape == torch.Size(shape) else None
