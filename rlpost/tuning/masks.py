r"""Masks of the entries of a model's tensors that may change: how they are made, combined, and stored in files.

A file is safetensors: for each Hugging Face name a ``uint8`` bitset (row-major, little bit order: numpy's
``packbits``), and as metadata the shapes, the checksum of the weights it was made for, how it was made, and the share
of each tensor that it keeps.
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

from rlpost.errors import DataError, first_line
from rlpost.sync.codec import checksum

Scope = Literal["global", "matrix"]
FORMAT = "rlpost-mask-1"


@dataclass(frozen=True, slots=True)
class TensorMask:
    """One tensor's part of a mask: its shape, and a bit for each entry.

    >>> TensorMask.of(torch.tensor([[True, False], [True, True]])).count
    3
    """

    shape: tuple[int, ...]
    packed: np.ndarray

    @classmethod
    def of(cls, kept: Tensor) -> TensorMask:
        """Make it from a boolean tensor."""
        return cls(tuple(kept.shape), np.packbits(kept.detach().cpu().numpy().reshape(-1), bitorder="little"))

    @property
    def size(self) -> int:
        """Number of entries of the tensor."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """Number of entries that may change."""
        return int(np.bitwise_count(self.packed).sum())

    def dense(self) -> Tensor:
        """The mask as a boolean tensor of the tensor's shape."""
        flat = np.unpackbits(self.packed, count=self.size, bitorder="little").astype(bool)
        return torch.from_numpy(flat).reshape(self.shape)

    def index(self) -> Tensor:
        """Positions in the flattened tensor, ascending; int32 if they fit, int64 otherwise."""
        found = torch.from_numpy(np.flatnonzero(np.unpackbits(self.packed, count=self.size, bitorder="little")))
        return found.to(torch.int32) if self.size < 2**31 else found


@dataclass(frozen=True, slots=True)
class Mask:
    """A bitset for each tensor that may change; tensors without one may not.

    Attributes:
        tensors: bitsets by Hugging Face name.
        base: `weights_hash` of the weights it was made for; empty if unknown.
        made: how the mask was made, as plain data.

    >>> Mask({"w": TensorMask.of(torch.tensor([True, False, False, False]))}).density
    0.25
    """

    tensors: Mapping[str, TensorMask]
    base: str = ""
    made: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def count(self) -> int:
        """Number of entries that may change."""
        return sum(bits.count for bits in self.tensors.values())

    @property
    def density(self) -> float:
        """Share of the entries of the named tensors that may change."""
        return self.count / max(sum(bits.size for bits in self.tensors.values()), 1)


def weights_hash(weights: Iterable[tuple[str, Tensor]]) -> str:
    """One checksum of all tensors with their names, independent of their order."""
    return hash_of((name, tensor.dtype, tuple(tensor.shape), checksum(tensor)) for name, tensor in weights)


def hash_of(tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...], str]]) -> str:
    """`weights_hash` from each tensor's name, dtype, shape and checksum."""
    lines = sorted(f"{name} {dtype} {shape} {digest}" for name, dtype, shape, digest in tensors)
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())


def top(scores: Mapping[str, Tensor], density: float, scope: Scope = "matrix") -> dict[str, TensorMask]:
    """Keep the entries with the highest scores.

    Args:
        scores: a score for each entry, by name.
        density: share to keep, in (0, 1]; of n entries round(density n), at least one.
        scope: ``matrix`` applies the density to each tensor, ``global`` to all entries together.

    Returns:
        Exactly that many entries: of equal scores the earlier ones are kept, in the order of ``scores`` and then by
        position.

    Raises:
        ValueError: for a density outside (0, 1], or NaN scores.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; use a share in (0, 1]")
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise ValueError(f"scores of {name!r} hold NaN")
    if scope == "matrix":
        return {
            name: TensorMask.of(_highest(score.flatten(), density).view(score.shape)) for name, score in scores.items()
        }
    joined = torch.cat([score.detach().float().flatten().cpu() for score in scores.values()])
    kept = _highest(joined, density)
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: TensorMask.of(part.view(scores[name].shape)) for name, part in zip(scores, parts, strict=True)}


def random(
    like: Mapping[str, tuple[int, ...]], density: float | Mapping[str, float], seed: int
) -> dict[str, TensorMask]:
    """Draw entries without replacement, uniformly in each tensor.

    Args:
        like: shapes by name.
        density: share to keep of every tensor, or by name (to match another mask's size in each layer).
        seed: seed of the draw; a tensor's entries do not depend on which other tensors there are.
    """
    found = {}
    for name, shape in like.items():
        share = density[name] if isinstance(density, Mapping) else density
        source = _source(seed, name)
        size = math.prod(shape)
        flat = np.zeros(size, bool)
        flat[source.choice(size, _quota(size, share), replace=False)] = True
        found[name] = TensorMask(tuple(shape), np.packbits(flat, bitorder="little"))
    return found


def difference(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], tolerance: float = 0.0
) -> dict[str, TensorMask]:
    """Entries that differ between two checkpoints.

    Args:
        before: tensors by name.
        after: tensors of the same names and shapes.
        tolerance: largest |Δ| that counts as equal; 0 compares exactly, and NaN then differs from everything.

    Raises:
        DataError: for a tensor that only one of them has, or whose shapes differ.
    """
    if odd := set(before) ^ set(after):
        raise DataError(f"mask: tensor {min(odd)!r} is in one checkpoint only ({len(odd)} such); compare two of a kind")
    found = {}
    for name, old in before.items():
        new = after[name]
        if old.shape != new.shape:
            raise DataError(f"mask: {name!r} is {tuple(old.shape)} in one checkpoint, {tuple(new.shape)} in the other")
        found[name] = TensorMask.of((new != old) if not tolerance else (new.double() - old.double()).abs() > tolerance)
    return found


def union(one: Mask, two: Mask) -> Mask:
    """Entries of either; for errors see `intersection`."""
    return _combined("union", one, two, np.bitwise_or, set(one.tensors) | set(two.tensors))


def intersection(one: Mask, two: Mask) -> Mask:
    """Entries of both. A tensor that one of them does not name has none.

    Raises:
        DataError: if a tensor has two shapes, or the masks were made for different weights.
    """
    return _combined("intersection", one, two, np.bitwise_and, set(one.tensors) & set(two.tensors))


def complement(mask: Mask) -> Mask:
    """The other entries of the tensors it names."""
    tensors = {name: TensorMask.of(~bits.dense()) for name, bits in mask.tensors.items()}
    return Mask(tensors, mask.base, {"complement": dict(mask.made)})


def thin(mask: Mask, density: float, seed: int) -> Mask:
    """Draw entries of a mask at random, so that each tensor with any entries keeps a share ``density``.

    Raises:
        ValueError: for a density outside (0, 1], or above that of a tensor.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; use a share in (0, 1]")
    tensors = {}
    for name, bits in mask.tensors.items():
        if not bits.count:
            tensors[name] = bits
            continue
        quota = _quota(bits.size, density)
        if bits.count < quota:
            raise ValueError(f"density is {density}, but {name!r} keeps {bits.count} of {bits.size}; use a lower one")
        kept = np.zeros(bits.size, bool)
        kept[_source(seed, name).choice(bits.index().numpy(), quota, replace=False)] = True
        tensors[name] = TensorMask(bits.shape, np.packbits(kept, bitorder="little"))
    return Mask(tensors, mask.base, {"thinned": dict(mask.made), "density": density, "seed": seed})


@dataclass(frozen=True, slots=True)
class Agreement:
    """Entries that two masks share.

    Attributes:
        both: number of shared entries.
        first: ``both`` as a share of the first mask's entries.
        second: ``both`` as a share of the second mask's entries.
        chance: mean number that random masks with as many entries in each tensor share.
        error: standard deviation of that number.
    """

    both: int
    first: float
    second: float
    chance: float
    error: float


def agreement(one: Mask, two: Mask) -> Agreement:
    """Compare two masks with each other and with random ones; for errors see `intersection`."""
    both = intersection(one, two)
    sizes = np.array([bits.size for bits in both.tensors.values()])
    kept = (np.array([mask.tensors[name].count for name in both.tensors]) for mask in (one, two))
    chance, variance = in_common(sizes, *kept)
    first, second = (both.count / max(mask.count, 1) for mask in (one, two))
    return Agreement(both.count, first, second, float(chance.sum()), float(np.sqrt(variance.sum())))


def in_common(total: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the number of entries that two random choices share.

    The number is hypergeometric: its mean is a b / n, its variance a b (n − a) (n − b) / (n² (n − 1)).

    Args:
        total: n, number of entries in each stratum.
        first: a, number of entries in the first choice, by stratum.
        second: b, number of entries in the second choice, by stratum.
    """
    n, a, b = (np.asarray(x, np.float64) for x in (total, first, second))
    return a * (b / np.maximum(n, 1)), a * b * (n - a) * (n - b) / np.maximum(n * n * (n - 1), 1)


def _combined(how: str, one: Mask, two: Mask, operation: Any, names: set[str]) -> Mask:
    if one.base and two.base and one.base != two.base:
        raise DataError(f"mask: made for different weights ({one.base[:8]}…, {two.base[:8]}…); use masks of one model")
    tensors: dict[str, TensorMask] = {}
    for name in sorted(names):
        first, second = one.tensors.get(name), two.tensors.get(name)
        if first is None or second is None:
            tensors[name] = first or second or TensorMask((0,), np.zeros(0, np.uint8))
        elif first.shape != second.shape:
            raise DataError(f"mask: {name!r} is {first.shape} in one and {second.shape} in the other; use one model's")
        else:
            tensors[name] = TensorMask(first.shape, operation(first.packed, second.packed))
    return Mask(tensors, one.base or two.base, {how: [dict(one.made), dict(two.made)]})


def save(mask: Mask, file: str | Path) -> None:
    """Write a mask file."""
    shapes = {name: bits.shape for name, bits in mask.tensors.items()}
    counts = {name: bits.count for name, bits in mask.tensors.items()}
    save_file(
        {n: bits.packed for n, bits in mask.tensors.items()}, str(file), metadata(shapes, counts, mask.base, mask.made)
    )


def metadata(
    shapes: Mapping[str, tuple[int, ...]], counts: Mapping[str, int], base: str, made: Mapping[str, Any]
) -> dict[str, str]:
    """Metadata of a mask file; ``counts`` are the kept entries of each tensor."""
    return {
        "format": FORMAT,
        "base": base,
        "made": json.dumps(dict(made), sort_keys=True),
        "shapes": json.dumps({name: list(shape) for name, shape in shapes.items()}),
        "density": json.dumps({name: counts[name] / max(math.prod(shape), 1) for name, shape in shapes.items()}),
    }


def load(file: str | Path) -> Mask:
    """Read a mask file.

    Raises:
        DataError: if it is missing, damaged, or not a mask.
    """
    try:
        with safe_open(str(file), "numpy") as stored:
            found: dict[str, str] = stored.metadata() or {}
            if found.get("format") != FORMAT:
                raise DataError(f"mask {file}: its format is {found.get('format')!r}, expected {FORMAT!r}")
            shapes = json.loads(found["shapes"])
            tensors = {name: TensorMask(tuple(shapes[name]), stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
            base, made = found["base"], dict(json.loads(found["made"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"mask {file}: cannot be read ({first_line(error)}); make it anew") from None
    for name, bits in tensors.items():
        if len(bits.packed) != -(-bits.size // 8):
            raise DataError(f"mask {file}: {len(bits.packed)} bytes for {name!r} {bits.shape}; make it anew")
    return Mask(tensors, base, made)


def _source(seed: int, name: str) -> np.random.Generator:
    """A random stream for each tensor, independent of which other tensors there are."""
    return np.random.default_rng([seed, xxhash.xxh32_intdigest(name.encode())])


def _quota(size: int, share: float) -> int:
    return min(max(round(size * share), 1), size)


def _highest(flat: Tensor, density: float) -> Tensor:
    """Boolean ``[n]``, true for the highest; a threshold and not a sort decides, so that ties go to earlier entries."""
    if not flat.numel():
        return torch.zeros(0, dtype=torch.bool)
    count = _quota(flat.numel(), density)
    flat = flat.detach().float()
    limit = torch.kthvalue(flat, flat.numel() - count + 1).values
    kept = flat > limit
    ties = (flat == limit).nonzero().flatten()[: count - int(kept.sum())]
    kept[ties] = True
    return kept
