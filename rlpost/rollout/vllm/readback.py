"""Views of a vLLM model's weights under Hugging Face names.

vLLM stacks some matrices (``qkv_proj`` holds the rows of q, k and v) and pads the vocabulary. Undoing both from the
published shapes, and not through vLLM's own loaders, makes the comparison independent of what it checks: every tensor
is first loaded through those loaders, and only a location that they confirmed is later written directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        The matching view by published name; None if the engine holds nothing of that name and shape.
    """
    return {name: _view(name, shape, parameters, packed, shapes) for name, shape in shapes.items()}


def shard_views(
    parameters: Mapping[str, Tensor],
    packed: Mapping[str, list[str]],
    shapes: Mapping[str, tuple[int, ...]],
    shards: int,
) -> dict[str, Tensor | None]:
    """`hugging_face_views` of one rank, which holds 1 / ``shards`` of each stacked matrix's rows.

    Args:
        parameters: the rank's own parameters by name.
        packed: the model's ``packed_modules_mapping``: fused module to its parts, in the order of their rows.
        shapes: published names and shapes of whole tensors.
        shards: number of ranks.

    Returns:
        This rank's part by published name, or the whole tensor if ranks hold copies. None if the rank holds nothing of
        that name, or its parts of a stacked matrix are not equal shares (key/value heads that are copied because there
        are fewer than ranks).
    """
    local = {
        name: tuple(parameters[name].shape) if name in parameters else (*(n // shards for n in shape[:1]), *shape[1:])
        for name, shape in shapes.items()
    }
    filled = dict.fromkeys(parameters, 0)
    stacked = {part: fused for fused, parts in packed.items() for part in parts}
    targets = {name: _fused_name(name, stacked) for name in shapes if name not in parameters}
    for name, target in targets.items():
        if target in filled and local[name]:
            filled[target] += local[name][0]
    views = hugging_face_views(parameters, packed, local)
    uneven = {name for name, target in targets.items() if filled.get(target) != len(parameters.get(target, ()))}
    return {name: None if name in uneven else view for name, view in views.items()}


def join_shards(parts: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor | None:
    """The whole tensor from the ranks' parts, in the order of ranks.

    Copies give that tensor; other parts are concatenated along the dimension in which they are smaller, and the result
    is cut to the shape, because vLLM pads the vocabulary.

    Returns:
        The tensor; None if the parts do not make one of that shape.

    Raises:
        ValueError: if parts that should be copies differ.
    """
    if all(tuple(part.shape) == shape for part in parts):
        if not all(torch.equal(parts[0], part) for part in parts[1:]):
            raise ValueError("ranks hold different copies")
        return parts[0]
    for dim in range(len(shape)):
        others = [tuple(n for i, n in enumerate(part.shape) if i != dim) for part in parts]
        expected = tuple(n for i, n in enumerate(shape) if i != dim)
        if all(other == expected for other in others) and sum(part.shape[dim] for part in parts) >= shape[dim]:
            return torch.cat(list(parts), dim).narrow(dim, 0, shape[dim])
    return None


def _fused_name(name: str, stacked: Mapping[str, str]) -> str:
    """Name of the stacked parameter that a published name is part of, or the name itself."""
    return ".".join(stacked.get(word, word) for word in name.split("."))


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
