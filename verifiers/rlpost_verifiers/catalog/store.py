r"""A catalog as arrays: items, defects and the table of their names, in memory or mapped from files.

A record per item stands in one run of bytes; arrays hold where it starts, its year, and for every name a hash that
leads to it. Mapped from files, the pages are shared by all processes of a node, and an item becomes Python objects only
when it is asked for. `rlpost_verifiers.catalog.building` makes the arrays of N items, E names and D defects:

    records    bytes         title \n id \n aliases joined by tabs \\n row as JSON
    start      uint64[N]     where each record starts in ``records``
    stop       uint64[N]     one past its last byte
    year       int16[N]      0: none
    row        uint32[N]     row of the file
    renamed    uint8[N]      1: another item has its id, so the row number takes its place
    hash       uint64[E]     hashes of the names' canonical forms, in ascending order
    owner      uint32[E]     item of each name
    dated      int16[E]      year of each name, 0: none
    kind       uint8[E]      article (0 to 3, see `ARTICLES`) + `ALIAS` or `SHORT`
    bucket     uint32[2^b+1] the first name whose hash starts with each b bits
    id_hash    uint64[I]     hashes of ids, in ascending order
    id_owner   uint32[I]     item of each id
    defect_row, defect_code, value_start, value_stop [D], and the bytes values: the defects of rows
"""

from __future__ import annotations

import json
import mmap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import xxhash

from rlpost_verifiers.catalog.names import ARTICLES
from rlpost_verifiers.catalog.records import DEFECTS, Defect, Item

ALIAS = 4
"""Bit of ``kind``: the name is an alias, not the title."""
SHORT = 8
"""Bit of ``kind``: the name is a title with a part left out, which counts with the item's year alone."""
ARTICLE_CODES = {article: code for code, article in enumerate(ARTICLES)}
REASONS = tuple(DEFECTS)
Arrays = dict[str, np.ndarray]
Bytes = bytes | mmap.mmap


def hash_of(key: str) -> int:
    """64-bit hash of a canonical title (XXH3); of 10M titles, two collide with probability 3e-6."""
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


class Store:
    """The arrays of a catalog.

    Args:
        arrays: as the module's docstring lists them.
        records: the items' records.
        values: the defects' values.
        used: columns of a row that are no attributes.
        digest: hash of all titles, years and aliases.
        folder: where the arrays are mapped from; None: they are in memory.
    """

    def __init__(
        self,
        arrays: Arrays,
        records: Bytes,
        values: Bytes,
        used: Sequence[str] = (),
        digest: str = "",
        folder: Path | None = None,
    ):
        self.arrays, self.records, self.values = arrays, records, values
        self.used, self.digest, self.folder = tuple(used), digest, folder
        # indexing a memoryview takes 40 ns, an array 100
        self._start, self._stop = arrays["start"].data, arrays["stop"].data
        self._year, self._row, self._renamed = arrays["year"].data, arrays["row"].data, arrays["renamed"].data
        self._hash, self._bucket, self._id_hash = arrays["hash"].data, arrays["bucket"].data, arrays["id_hash"].data
        self._owner, self._dated, self._kind = arrays["owner"].data, arrays["dated"].data, arrays["kind"].data
        self._shift = 64 - (len(self._bucket) - 1).bit_length() + 1

    def __len__(self) -> int:
        return len(self._year)

    @classmethod
    def mapped(cls, folder: Path) -> Store:
        """The arrays that `save` wrote.

        Raises:
            OSError, ValueError, KeyError: if files are missing or damaged.
        """
        told = json.loads((folder / "store.json").read_text())
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in told["arrays"]}
        found = cls(arrays, _map(folder / "records"), _map(folder / "values"), told["used"], told["digest"], folder)
        if len(found.records) < told["records"] or len(found.values) < told["values"]:
            raise ValueError(f"{folder}: the files are shorter than they were written")
        return found

    def save(self, folder: Path) -> None:
        """Write the arrays; records and values that are not there yet, too."""
        for name, blob in (("records", self.records), ("values", self.values)):
            if not (folder / name).exists():
                (folder / name).write_bytes(blob)
        for name, values in self.arrays.items():
            np.save(folder / f"{name}.npy", values)
        told = {
            "arrays": sorted(self.arrays),
            "used": self.used,
            "digest": self.digest,
            **{name: (folder / name).stat().st_size for name in ("records", "values")},
        }
        (folder / "store.json").write_text(json.dumps(told))

    def year(self, number: int) -> int | None:
        """Year of an item."""
        return self._year[number] or None

    def names(self, key: str) -> list[tuple[int, int, int]]:
        """(item, year or 0, kind) of the names with a canonical form.

        Args:
            key: the canonical form without article.
        """
        code = hash_of(key)
        high = code >> self._shift
        place, last = self._bucket[high], self._bucket[high + 1]
        hashes = self._hash
        while place < last and hashes[place] < code:
            place += 1
        found: list[tuple[int, int, int]] = []
        while place < last and hashes[place] == code:
            found.append((self._owner[place], self._dated[place], self._kind[place]))
            place += 1
        return found

    def owner_of_id(self, identity: str) -> int | None:
        """The item with an id."""
        code = hash_of(identity)
        hashes = self._id_hash
        place = bisect_left(hashes, code)
        return int(self.arrays["id_owner"][place]) if place < len(hashes) and hashes[place] == code else None

    def title(self, number: int) -> str:
        """Title of an item."""
        start = self._start[number]
        return self.records[start : self.records.find(b"\n", start)].decode("utf-8", "surrogatepass")

    def name(self, number: int) -> str:
        """An item as written in a list: ``Title (Year)``."""
        year = self._year[number]
        return f"{self.title(number)} ({year})" if year else self.title(number)

    def titles(self, number: int) -> list[str]:
        """Title and aliases of an item."""
        title, _, aliases, _ = self._record(number)
        return [title, *aliases.split("\t")] if aliases else [title]

    def written(self, number: int) -> str:
        """Title of an item as its file has it, on one line; where no file was read, the title."""
        title, _, _, content = self._record(number)
        raw = json.loads(content, strict=False).get(self.used[0]) if content and self.used else None
        return " ".join(raw.split()) if isinstance(raw, str) else title

    def attributes(self, number: int) -> dict[str, Any]:
        """The other columns of an item."""
        content = self._record(number)[3]
        row = json.loads(content, strict=False) if content else {}
        return {name: value for name, value in row.items() if name not in self.used}

    def item(self, number: int) -> Item:
        """An item."""
        title, told, aliases, _ = self._record(number)
        if self._renamed[number] or not told:
            row = self._row[number]
            told = f"row {row}" if len(self.arrays["id_hash"]) else str(row)
        return Item(
            told, title, self.year(number), tuple(aliases.split("\t")) if aliases else (), self.attributes(number)
        )

    def _record(self, number: int) -> list[str]:
        text = self.records[self._start[number] : self._stop[number]].decode("utf-8", "surrogatepass")
        return text.split("\n", 3)


class Items(Sequence[Item]):
    """The items of a catalog, each made when it is asked for."""

    def __init__(self, store: Store):
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, place: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(place, slice):
            return tuple(self.store.item(number) for number in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(f"item {place} of {len(self)}")
        return self.store.item(place % len(self))

    def __iter__(self) -> Iterator[Item]:
        return (self.store.item(number) for number in range(len(self)))


class Defects(Sequence[Defect]):
    """The defects of a catalog's rows in the order of rows, each made when it is asked for."""

    def __init__(self, store: Store):
        self._store = store
        self._rows, self._codes = store.arrays["defect_row"], store.arrays["defect_code"]
        self._starts, self._stops = store.arrays["value_start"], store.arrays["value_stop"]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Defect: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Defect, ...]: ...
    def __getitem__(self, place: int | slice) -> Defect | tuple[Defect, ...]:
        if isinstance(place, slice):
            return tuple(self[number] for number in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(f"defect {place} of {len(self)}")
        value = self._store.values[int(self._starts[place]) : int(self._stops[place])]
        return Defect(int(self._rows[place]), REASONS[self._codes[place]], value.decode("utf-8", "surrogatepass"))

    def counts(self) -> dict[str, int]:
        """Number of rows of each defect, most frequent first."""
        counts = np.bincount(self._codes, minlength=len(REASONS))
        order = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], code))
        return {REASONS[code]: int(counts[code]) for code in order}


def _map(file: Path) -> Bytes:
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""
