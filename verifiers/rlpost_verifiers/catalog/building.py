"""Collects the rows of a catalog, and makes the arrays of `rlpost_verifiers.catalog.store` from them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from rlpost_verifiers.catalog.names import carried_year, key_of, key_of_canonical
from rlpost_verifiers.catalog.shortened import shorter_names
from rlpost_verifiers.catalog.store import ALIAS, ARTICLE_CODES, REASONS, SHORT, Arrays, Store, hash_of

_CODES = {reason: code for code, reason in enumerate(REASONS)}
_VALUE = 80
"""Most characters of a defect's value that are kept."""
_AT_ONCE = 1000
"""Texts that are encoded and hashed at once."""


class _Blob:
    """Texts one after the other, in memory or in a file, and where each starts. They are encoded many at once."""

    def __init__(self, file: Path | None):
        self._file = None if file is None else file.open("wb", buffering=1 << 20)
        self._path, self._parts, self._size = file, list[bytes](), 0
        self._waiting: list[str] = []
        self._starts = array("Q")

    def add(self, text: str) -> None:
        self._waiting.append(text)
        if len(self._waiting) == _AT_ONCE:
            self._encode()

    def _encode(self) -> None:
        if not self._waiting:
            return
        texts, joined = self._waiting, "".join(self._waiting)
        data = joined.encode("utf-8", "surrogatepass")
        sizes = map(len, texts if joined.isascii() else (text.encode("utf-8", "surrogatepass") for text in texts))
        self._starts.extend(accumulate(sizes, initial=self._size))
        self._size = self._starts.pop()
        (self._parts.append if self._file is None else self._file.write)(data)
        texts.clear()

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Start and stop of each text."""
        self._encode()
        start = np.array(self._starts, np.uint64)
        return start, np.append(start, np.uint64(self._size))[1:]

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of what was added, after `close`."""
        if self._path is None:
            return self._parts[0][start:stop]
        with self._path.open("rb") as opened:
            opened.seek(start)
            return opened.read(stop - start)

    def close(self) -> bytes:
        """End writing; the whole content if it is in memory."""
        self._encode()
        if self._file is not None:
            self._file.close()
        self._parts = [b"".join(self._parts)]
        return self._parts[0]


class Builder:
    """Collects the rows of a catalog.

    Args:
        folder: existing folder for the records and values; None: they stay in memory.
        used: columns of a row that are no attributes.
    """

    def __init__(self, folder: Path | None = None, used: Sequence[str] = ()):
        self.used, self._folder = used, folder
        self._records = _Blob(None if folder is None else folder / "records")
        self._values = _Blob(None if folder is None else folder / "values")
        self._year, self._row = array("h"), array("I")
        self._id_hash, self._id_owner = array("Q"), array("I")
        # one append instead of three: year, kind and item of a name side by side in 64 bits
        self._hash, self._named = array("Q"), array("Q")
        self._defect_row, self._defect_code = array("I"), array("B")
        self._digest, self._texts = hashlib.sha256(), list[str]()

    def __len__(self) -> int:
        return len(self._year)

    def note(self, row: int, reason: str, value: Any) -> None:
        """Add a defect of a row."""
        self._defect_row.append(row)
        self._defect_code.append(_CODES[reason])
        self._values.add((value if isinstance(value, str) else repr(value))[:_VALUE])

    def add(
        self, row: int, identity: str | None, title: str, year: int | None, aliases: Sequence[str], content: str
    ) -> None:
        """Add an item; ``content``: its row as JSON, or nothing."""
        number = len(self._year)
        told = "" if identity is None else identity if identity.isalnum() else " ".join(identity.split())
        also = "\t".join([" ".join(alias.split()) for alias in aliases]) if aliases else ""
        self._records.add(f"{title}\n{told}\n{also}\n{content}")
        self._texts.append(f"{title}\t{year}\t{also}\n")
        if len(self._texts) == _AT_ONCE:
            self._hash_texts()
        self._row.append(row)
        self._year.append(year or 0)
        if told:
            self._id_hash.append(hash_of(told))
            self._id_owner.append(number)
        told_title = key_of(title)
        self._key(told_title, number, year or 0, 0)
        if year is not None:
            for short in shorter_names(title, told_title[0]):
                self._key(key_of_canonical(short), number, year, SHORT)
        for alias in aliases:
            carried = carried_year(alias)
            if carried is not None:
                self._name(carried[0], number, carried[1], ALIAS)
            self._name(alias, number, year or 0, ALIAS)

    def _name(self, name: str, number: int, year: int, kind: int) -> None:
        self._key(key_of(name), number, year, kind)

    def _key(self, told: tuple[str, str], number: int, year: int, kind: int) -> None:
        key, article = told
        self._hash.append(hash_of(key))
        self._named.append((number << 32) | (year << 8) | kind | ARTICLE_CODES[article])

    def _hash_texts(self) -> None:
        self._digest.update("".join(self._texts).encode("utf-8", "surrogatepass"))
        self._texts.clear()

    def finish(self, merge: bool = True) -> Store:
        """The catalog of all rows.

        Args:
            merge: whether a later item of the same title (article included) and year is the earlier one; its names and
                its id then lead to that.
        """
        records = self._records.close()
        self._hash_texts()
        named = np.array(self._named, np.uint64)
        names = {
            "hash": np.array(self._hash, np.uint64),
            "owner": (named >> 32).astype(np.uint32),
            "dated": (named >> 8).astype(np.uint16).view(np.int16),
            "kind": named.astype(np.uint8),
        }
        del named
        first = _first_alike(names) if merge else np.arange(len(self), dtype=np.uint32)
        kept = first == np.arange(len(self))
        place = (np.cumsum(kept) - 1).astype(np.uint32)[first]  # of each row's item among those kept
        ids, renamed = _ids(np.array(self._id_hash, np.uint64), np.array(self._id_owner, np.uint32), kept, place)
        start, stop = self._records.bounds()
        for number in np.flatnonzero(~kept).tolist():
            self._note_title("duplicate", number, start, stop)
        for number in np.flatnonzero(renamed).tolist():
            self._note_title("id_twice", number, start, stop)
        years = np.array(self._year, np.int16)
        items = {"start": start, "stop": stop, "year": years, "row": np.array(self._row, np.uint32), "renamed": renamed}
        arrays = {name: values[kept] for name, values in items.items()}
        arrays |= ids | _sorted_names(names, kept, place) | self._defects(dated=bool((years > 0).any()))
        return Store(arrays, records, self._values.close(), self.used, self._digest.hexdigest())

    def _note_title(self, reason: str, number: int, start: np.ndarray, stop: np.ndarray) -> None:
        title = self._records.read(int(start[number]), int(stop[number])).decode("utf-8", "surrogatepass")
        self.note(self._row[number], reason, title[: title.index("\n")])

    def _defects(self, dated: bool) -> Arrays:
        """Defects in the order of rows; where no item has a year, its absence is no defect."""
        row, code = np.array(self._defect_row, np.uint32), np.array(self._defect_code, np.uint8)
        start, stop = self._values.bounds()
        order = np.argsort(row, kind="stable")
        if not dated:
            order = order[code[order] != _CODES["no_year"]]
        return {
            "defect_row": row[order],
            "defect_code": code[order],
            "value_start": start[order],
            "value_stop": stop[order],
        }


def _first_alike(names: Arrays) -> np.ndarray:
    """For every row the first row with the same title, article and year."""
    primary = names["kind"] < ALIAS
    code, kind, dated = (names[name][primary] for name in ("hash", "kind", "dated"))
    order = np.lexsort((dated, kind, code))  # stable: rows of one kind stay in their order
    new = np.ones(len(order), bool)
    new[1:] = False
    for values in (code, kind, dated):
        new[1:] |= values[order][1:] != values[order][:-1]
    first = np.empty(len(order), np.uint32)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def _ids(code: np.ndarray, owner: np.ndarray, kept: np.ndarray, place: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """Ids in the order of their hashes, and which rows are kept without theirs, because an earlier one has it."""
    renamed = np.zeros(len(kept), np.uint8)
    order = np.lexsort((owner, ~kept[owner], code))  # an item's own id goes before one that leads to it
    code, owner = code[order], owner[order]
    new = np.ones(len(code), bool)
    new[1:] = code[1:] != code[:-1]
    renamed[owner[~new & kept[owner]]] = 1
    return {"id_hash": code[new], "id_owner": place[owner[new]]}, renamed


def _sorted_names(names: Arrays, kept: np.ndarray, place: np.ndarray) -> Arrays:
    """Names in the order of their hashes, and the first name of each bucket."""
    stays = kept[names["owner"]] | (names["kind"] >= ALIAS)  # a duplicate's title is the title of what it repeats
    order = np.flatnonzero(stays)
    order = order[np.argsort(names["hash"][order], kind="stable")]
    code = names["hash"][order]
    bits = max(len(code) - 1, 1).bit_length()
    edges = np.arange(2**bits, dtype=np.uint64) << np.uint64(64 - bits)
    bucket = np.append(np.searchsorted(code, edges), len(code)).astype(np.uint32)
    return {
        "hash": code,
        "owner": place[names["owner"][order]],
        "dated": names["dated"][order],
        "kind": names["kind"][order],
        "bucket": bucket,
    }
