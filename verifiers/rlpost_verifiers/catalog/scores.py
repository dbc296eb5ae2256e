"""Scores of a catalog's items for conversations as one table, and what demonstrations are made from.

`rlpost_verifiers.catalog.streamed` has the same without the table, for catalogs and conversations that are too many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from rlpost_verifiers.catalog.remap import Adjustment, adjust, demonstration, reflect


class Scores(Protocol):
    """Scores ``[Q, C]`` of a catalog's C items for Q conversations, in whatever form."""

    def best(
        self,
        places: Sequence[int],
        size: int,
        left_out: Sequence[Collection[int]],
        adjustment: Adjustment | None = None,
    ) -> list[list[int]]:
        """The ``size`` best items of each of these conversations, best first; ties in the catalog's order.

        Args:
            places: the conversations.
            size: length of a list.
            left_out: items that may not be in the list, for each place.
            adjustment: scale and bias that are applied first; None: none.
        """
        ...

    def reflected(self, ratings: Mapping[int, Mapping[int, float]], weight: float) -> Scores:
        """Scores plus ``weight`` times a teacher's ratings of some items, by conversation and item."""
        ...

    def fit(self, places: Sequence[int], wanted: Sequence[Sequence[int]], penalty: float) -> Adjustment:
        """The adjustment of `remap.adjust` for what the users of these conversations wanted."""
        ...


class DenseScores:
    """All scores in one table.

    Args:
        table: ``[Q, C]`` float32.
    """

    def __init__(self, table: np.ndarray):
        self.table = table

    def best(
        self,
        places: Sequence[int],
        size: int,
        left_out: Sequence[Collection[int]],
        adjustment: Adjustment | None = None,
    ) -> list[list[int]]:
        """See `Scores.best`."""
        return [
            demonstration(self.table[place] if adjustment is None else adjustment(self.table[place]), size, out)
            for place, out in zip(places, left_out, strict=True)
        ]

    def reflected(self, ratings: Mapping[int, Mapping[int, float]], weight: float) -> DenseScores:
        """See `Scores.reflected`; conversations without ratings keep their scores."""
        found = self.table.copy()
        for place, given in ratings.items():
            found[place] = reflect(self.table[place], given, weight)
        return DenseScores(found)

    def fit(self, places: Sequence[int], wanted: Sequence[Sequence[int]], penalty: float) -> Adjustment:
        """See `Scores.fit`."""
        return adjust(self.table[list(places)], wanted, penalty)
