"""Vectors of a catalog's items: in memory for a small catalog, mapped from a file of the cache for a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rlpost_verifiers.catalog.cache import made_once
from rlpost_verifiers.catalog.embedding import describe
from rlpost_verifiers.catalog.items import Item

Embed = Callable[[Sequence[str]], np.ndarray]
AT_ONCE = 50_000
"""Most items whose vectors are kept in memory; texts of a larger catalog are embedded so many at a time."""


def item_vectors(items: Sequence[Item], embed: Embed, at_once: int = AT_ONCE) -> np.ndarray:
    """Vectors ``[C, d]`` float32 of what `describe` says of each item.

    Those of a large catalog are kept in the cache folder and found again by the texts and the embedder's
    ``fingerprint``; without one (an embedder of one's own) they are made anew.

    Args:
        items: the catalog's items.
        embed: maps n texts to vectors ``[n, d]``.
        at_once: see `AT_ONCE`.
    """
    if len(items) <= at_once:
        return embed([describe(item) for item in items])
    told = xxhash.xxh3_128()
    for item in items:
        told.update(describe(item).encode("utf-8", "surrogatepass") + b"\n")
    fingerprint = getattr(embed, "fingerprint", None)
    told.update(repr(fingerprint).encode())

    def make(folder: Path) -> None:
        blocks = (np.asarray(embed([describe(item) for item in part]), np.float32) for part in _parts(items, at_once))
        first = next(blocks)
        found: Any = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (len(items), first.shape[1]))
        begin = 0
        for block in chain([first], blocks):
            found[begin : begin + len(block)] = block
            begin += len(block)
        found.flush()

    def read(folder: Path) -> np.ndarray:
        return np.load(folder / "vectors.npy", mmap_mode="r")

    return made_once(f"{told.hexdigest()}-vectors", make, read, kept=fingerprint is not None)


def _parts(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    every = iter(items)
    while part := list(islice(every, size)):
        yield part
