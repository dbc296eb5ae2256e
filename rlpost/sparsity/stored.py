"""A tensor of a checkpoint that is read piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a checkpoint.

    Attributes:
        name: tensor name in the file.
        dtype: safetensors' name of the number format.
        shape: tensor shape.
        read: `read(start, stop)` returns the entries of the flattened tensor in that range, as a flat tensor. An
            optional third argument is a `Scratch` whose memory the result may use; it is valid until the next read with
            the same `Scratch`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[..., Tensor]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Entries per row: the size of the last dimension; a vector is one row."""
        return max(self.shape[-1], 1) if self.shape else 1

    def whole(self) -> Tensor:
        """Read the whole tensor, in its shape."""
        return self.read(0, self.size).reshape(self.shape)
