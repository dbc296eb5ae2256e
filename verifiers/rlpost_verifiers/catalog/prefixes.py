"""Titles in alphabetical order: which ones begin with given words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlpost_verifiers.catalog.cache import made_once
from rlpost_verifiers.catalog.names import key_of
from rlpost_verifiers.catalog.store import Store

_MOST = 50
"""More titles than this that begin alike are none."""


class Prefixes:
    """The items of a catalog in the order of their canonical titles."""

    def __init__(self, store: Store, order: Sequence[int]):
        self._store, self._order = store, order

    @classmethod
    def of(cls, store: Store) -> Prefixes:
        """The order of a catalog's titles; mapped from a file where the catalog is."""
        if store.folder is None:
            return cls(store, _order(store))

        def mapped(folder: Path) -> Prefixes:
            return cls(store, np.load(folder / "order.npy", mmap_mode="r").data)

        name = f"{store.folder.name}-prefixes"
        return made_once(name, lambda folder: np.save(folder / "order.npy", np.array(_order(store), np.uint32)), mapped)

    def owners(self, key: str) -> set[int]:
        """The items whose canonical title is some words or goes on behind them; none if there are very many."""
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            if self._key(middle) < key:
                low = middle + 1
            else:
                high = middle
        found: set[int] = set()
        for place in range(low, len(self._order)):
            title = self._key(place)
            if not title.startswith(key):
                break
            if title == key or title[len(key)] == " ":
                found.add(self._order[place])
            if len(found) > _MOST:
                return set()
        return found

    def _key(self, place: int) -> str:
        return key_of(self._store.title(self._order[place]))[0]


def _order(store: Store) -> list[int]:
    keys = [key_of(store.title(number))[0] for number in range(len(store))]
    return sorted(range(len(keys)), key=keys.__getitem__)
