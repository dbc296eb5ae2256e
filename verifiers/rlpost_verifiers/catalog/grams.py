"""Trigrams of titles: which titles of a large catalog may be a misspelt one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlpost.errors import MissingPackageError
from rlpost_verifiers.catalog.cache import made_once
from rlpost_verifiers.catalog.names import key_of
from rlpost_verifiers.catalog.store import Store

_GRAM = 3
_BUCKETS = 2**21
"""Number of hash buckets for trigrams: four times the distinct trigrams of 1M titles of film length."""
_RAREST = 6
"""Number of a query's rarest trigrams that are used to find candidates."""
_MOST_OF_A_GRAM = 20_000
"""Trigrams that occur in more titles are ignored: they do not discriminate."""
_CANDIDATES = 64
_AT_ONCE = 100_000
"""Titles whose trigrams are made at once: about 200 bytes of work space for each character."""


class Grams:
    """Trigram index: finds titles that share trigrams with a query, among which rapidfuzz finds the similar ones.

    Raises:
        MissingPackageError: if rapidfuzz is not installed.
    """

    def __init__(self, keys: Sequence[str], owners: np.ndarray, starts: np.ndarray):
        try:
            from rapidfuzz import fuzz, process
        except ImportError as error:
            raise MissingPackageError(
                "catalog: fuzzy matching needs rapidfuzz; pip install 'rlpost[catalog]'"
            ) from error
        self._process, self._ratio = process, fuzz.ratio
        self._keys, self._owners, self._starts = keys, owners, starts

    @classmethod
    def of(cls, store: Store) -> Grams:
        """The trigrams of a catalog; mapped from files where the catalog is."""
        if store.folder is None:
            keys = _keys(store)
            return cls(keys, *_postings(keys))
        name = f"{store.folder.name}-grams"
        return made_once(name, lambda folder: _save(folder, _keys(store)), cls._mapped)

    @classmethod
    def _mapped(cls, folder: Path) -> Grams:
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("text", "stops", "owners", "starts")]
        return cls(_Keys(arrays[0], arrays[1]), arrays[2], arrays[3])

    def nearest(self, key: str, similarity: float) -> list[tuple[float, str]]:
        """(score, canonical title) of up to 8 titles that are similar enough, best first."""
        buckets = np.unique(_buckets(np.array([ord(c) for c in f" {key} "], np.int64)))
        first, last = self._starts[buckets].astype(np.int64), self._starts[buckets + 1].astype(np.int64)
        sizes = last - first
        usable = [i for i in np.argsort(sizes) if 0 < sizes[i] <= _MOST_OF_A_GRAM][:_RAREST]
        if not usable:
            return []
        owners = self._likeliest([self._owners[first[i] : last[i]] for i in usable])
        names = [self._keys[owner] for owner in owners.tolist()]
        found = self._process.extract(key, names, scorer=self._ratio, score_cutoff=similarity, limit=8)
        return sorted(((float(score), name) for name, score, _ in found), key=lambda pair: (-pair[0], pair[1]))

    def _likeliest(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """The titles that occur in most of the pieces (titles that contain one trigram), at most `_CANDIDATES`."""
        shared = np.zeros(len(self._keys), np.uint8)
        for piece in pieces:
            shared[piece] += 1
        found: list[np.ndarray] = []
        room = _CANDIDATES
        every = np.concatenate(pieces)
        of_each = shared[every]
        # counting per title is faster than sorting the concatenated pieces
        for count in range(len(pieces), 0, -1):
            found.append(np.unique(every[of_each == count])[:room])
            room -= len(found[-1])
            if room <= 0:
                break
        return np.concatenate(found)


class _Keys(Sequence[str]):
    """Texts in one array of bytes."""

    def __init__(self, text: np.ndarray, stops: np.ndarray):
        self._text, self._stops = text, stops

    def __len__(self) -> int:
        return len(self._stops) - 1

    def __getitem__(self, place: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        text = self._text[int(self._stops[place]) : int(self._stops[place + 1])]
        return text.tobytes().decode("utf-8", "surrogatepass")


def _keys(store: Store) -> list[str]:
    """The distinct canonical forms of all names, in the order of items."""
    return list(dict.fromkeys(key_of(name)[0] for number in range(len(store)) for name in store.titles(number)))


def _save(folder: Path, keys: list[str]) -> None:
    owners, starts = _postings(keys)
    texts = [key.encode("utf-8", "surrogatepass") for key in keys]
    stops = np.concatenate([np.zeros(1, np.uint64), np.cumsum([len(text) for text in texts], dtype=np.uint64)])
    for name, values in (
        ("text", np.frombuffer(b"".join(texts), np.uint8)),
        ("stops", stops),
        ("owners", owners),
        ("starts", starts),
    ):
        np.save(folder / f"{name}.npy", values)


def _buckets(codes: np.ndarray) -> np.ndarray:
    """Hash bucket of each trigram in a sequence of character codes."""
    if len(codes) < _GRAM:
        return np.zeros(0, np.int64)
    mixed = (codes[:-2] * 0x9E3779B1 + codes[1:-1] * 0x85EBCA77 + codes[2:] * 0xC2B2AE3D) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) & (_BUCKETS - 1)


def _postings(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The titles of each bucket one after the other, and where each bucket starts."""
    pieces = [_grams(keys[first : first + _AT_ONCE], first) for first in range(0, len(keys), _AT_ONCE)]
    owners = np.concatenate([piece[0] for piece in pieces]) if pieces else np.zeros(0, np.uint32)
    buckets = np.concatenate([piece[1] for piece in pieces]) if pieces else np.zeros(0, np.int32)
    order = np.argsort(buckets, kind="stable")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(buckets, minlength=_BUCKETS))])
    return owners[order], starts.astype(np.uint32 if starts[-1] < 2**32 else np.uint64)


def _grams(keys: Sequence[str], first: int) -> tuple[np.ndarray, np.ndarray]:
    """Title number (counted from ``first``) and bucket of every trigram in some titles."""
    text = "".join(f" {key} " for key in keys)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    lengths = np.fromiter((len(key) + 2 for key in keys), np.int64, len(keys))
    owners = np.repeat(np.arange(first, first + len(keys), dtype=np.uint32), lengths)
    same = owners[:-2] == owners[2:]
    return owners[:-2][same], _buckets(codes)[same].astype(np.int32)
