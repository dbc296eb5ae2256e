"""Which tensors are matrices to an optimizer."""

from __future__ import annotations

_TABLES = ("embed", "lm_head", "wte", "wpe")
"""Words in the names of matrices that are tables of vectors."""


def is_map(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a hidden layer's matrix, and not a table of vectors, a bias or a norm.

    >>> is_map("model.layers.0.mlp.up_proj.weight", (8, 4)), is_map("lm_head.weight", (9, 4))
    (True, False)
    """
    return len(shape) == 2 and not any(word in name for word in _TABLES)
