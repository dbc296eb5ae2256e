r"""Which entries of a model's tensors may change: made from scores, kept as a file that others can use.

A file is safetensors: for each Hugging Face name a ``uint8`` bitset (row-major, little bit order: numpy's
``packbits``), and as metadata the shapes, the checksum of the weights it was made for, how it was made, and the share
kept of each tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from rlpost.errors import DataError
from rlpost.sync.codec import checksum

Scope = Literal["global", "matrix"]
FORMAT = "rlpost-mask-1"


@dataclass(frozen=True, slots=True)
class Bits:
    """One tensor's part of a mask: its shape, and a bit for each entry.

    >>> Bits.of(torch.tensor([[True, False], [True, True]])).count
    3
    """

    shape: tuple[int, ...]
    packed: np.ndarray

    @classmethod
    def of(cls, kept: Tensor) -> Bits:
        """From a boolean tensor."""
        return cls(tuple(kept.shape), np.packbits(kept.detach().cpu().numpy().reshape(-1), bitorder="little"))

    @property
    def size(self) -> int:
        """Entries of the tensor."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """Entries that may change."""
        return int(np.bitwise_count(self.packed).sum())

    def dense(self) -> Tensor:
        """Boolean tensor of the shape."""
        flat = np.unpackbits(self.packed, count=self.size, bitorder="little").astype(bool)
        return torch.from_numpy(flat).reshape(self.shape)

    def index(self) -> Tensor:
        """Positions in the flattened tensor, ascending; int32 where they fit, int64 otherwise."""
        found = torch.from_numpy(np.flatnonzero(np.unpackbits(self.packed, count=self.size, bitorder="little")))
        return found.to(torch.int32) if self.size < 2**31 else found


@dataclass(frozen=True, slots=True)
class Mask:
    """A bitset for each tensor that may change; tensors without one may not.

    Attributes:
        tensors: by Hugging Face name.
        base: `weights_hash` of the weights it was made for, empty where unknown.
        made: how, as plain data.

    >>> Mask({"w": Bits.of(torch.tensor([True, False, False, False]))}).density
    0.25
    """

    tensors: Mapping[str, Bits]
    base: str = ""
    made: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def count(self) -> int:
        """Entries that may change."""
        return sum(bits.count for bits in self.tensors.values())

    @property
    def density(self) -> float:
        """Share of the entries of its tensors that may change."""
        return self.count / max(sum(bits.size for bits in self.tensors.values()), 1)


def weights_hash(weights: Iterable[tuple[str, Tensor]]) -> str:
    """One checksum of all tensors with their names, in whatever order they come."""
    lines = sorted(f"{name} {tensor.dtype} {tuple(tensor.shape)} {checksum(tensor)}" for name, tensor in weights)
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())


def top(scores: Mapping[str, Tensor], density: float, scope: Scope = "matrix") -> dict[str, Bits]:
    """The entries with the highest scores.

    Args:
        scores: a score for each entry, by name.
        density: share to keep, in (0, 1]; of n entries round(density n), at least one.
        scope: of each tensor by itself, or of all entries together.

    Returns:
        Exactly that many entries: of equal scores the earlier ones are kept, by name and then by position.

    Raises:
        ValueError: for a density outside (0, 1], or scores that are not numbers.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; use a share in (0, 1]")
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise ValueError(f"scores of {name!r} hold NaN")
    if scope == "matrix":
        return {name: Bits.of(_highest(score.flatten(), density).view(score.shape)) for name, score in scores.items()}
    joined = torch.cat([score.detach().float().flatten().cpu() for score in scores.values()])
    kept = _highest(joined, density)
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: Bits.of(part.view(scores[name].shape)) for name, part in zip(scores, parts, strict=True)}


def random(like: Mapping[str, tuple[int, ...]], density: float | Mapping[str, float], seed: int) -> dict[str, Bits]:
    """Entries drawn without replacement, each as likely as any other of its tensor.

    Args:
        like: shapes by name.
        density: of every tensor, or of each (a mask of the same size per layer as another).
        seed: of the draw; a tensor's entries depend on it, the tensor's name and its size alone.
    """
    found = {}
    for name, shape in like.items():
        share = density[name] if isinstance(density, Mapping) else density
        source = np.random.default_rng([seed, xxhash.xxh32_intdigest(name.encode())])
        size = math.prod(shape)
        flat = np.zeros(size, bool)
        flat[source.choice(size, _quota(size, share), replace=False)] = True
        found[name] = Bits(tuple(shape), np.packbits(flat, bitorder="little"))
    return found


def difference(before: Mapping[str, Tensor], after: Mapping[str, Tensor], tolerance: float = 0.0) -> dict[str, Bits]:
    """Entries that differ between two checkpoints.

    Args:
        before: tensors by name.
        after: of the same names and shapes.
        tolerance: largest |Δ| that counts as equal; 0: exactly, where NaN differs from everything.

    Raises:
        DataError: for a tensor that only one of them has, or of another shape.
    """
    if odd := set(before) ^ set(after):
        raise DataError(f"mask: tensor {min(odd)!r} is in one checkpoint only ({len(odd)} such); compare two of a kind")
    found = {}
    for name, old in before.items():
        new = after[name]
        if old.shape != new.shape:
            raise DataError(f"mask: {name!r} is {tuple(old.shape)} in one checkpoint, {tuple(new.shape)} in the other")
        found[name] = Bits.of((new != old) if not tolerance else (new.double() - old.double()).abs() > tolerance)
    return found


def save(mask: Mask, file: str | Path) -> None:
    """Write a mask file."""
    shares = {name: bits.count / max(bits.size, 1) for name, bits in mask.tensors.items()}
    shapes = {name: list(bits.shape) for name, bits in mask.tensors.items()}
    metadata = {
        "format": FORMAT,
        "base": mask.base,
        "made": json.dumps(dict(mask.made), sort_keys=True),
        "shapes": json.dumps(shapes),
        "density": json.dumps(shares),
    }
    save_file({name: bits.packed for name, bits in mask.tensors.items()}, str(file), metadata)


def load(file: str | Path) -> Mask:
    """Read a mask file.

    Raises:
        DataError: if it is missing, damaged, or no mask.
    """
    try:
        with safe_open(str(file), "numpy") as stored:
            metadata: dict[str, str] = stored.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DataError(f"mask {file}: its format is {metadata.get('format')!r}, expected {FORMAT!r}")
            shapes = json.loads(metadata["shapes"])
            tensors = {name: Bits(tuple(shapes[name]), stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"mask {file}: cannot be read ({reason}); make it anew") from None
    for name, bits in tensors.items():
        if len(bits.packed) != -(-bits.size // 8):
            raise DataError(f"mask {file}: {len(bits.packed)} bytes for {name!r} {bits.shape}; make it anew")
    return Mask(tensors, metadata["base"], json.loads(metadata["made"]))


def _quota(size: int, share: float) -> int:
    return min(max(round(size * share), 1), size)


def _highest(flat: Tensor, density: float) -> Tensor:
    """Boolean ``[n]``; a threshold and not a sort decides, so that ties go to the earlier entries."""
    count = _quota(flat.numel(), density)
    flat = flat.detach().float()
    limit = torch.kthvalue(flat, flat.numel() - count + 1).values
    kept = flat > limit
    ties = (flat == limit).nonzero().flatten()[: count - int(kept.sum())]
    kept[ties] = True
    return kept
