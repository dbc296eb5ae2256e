r"""Scores of a catalog's items for conversations without a table of all of them.

The scores of `rlpost_verifiers.catalog.remap` are a product of vectors, apart from a few items per conversation:

    s_q = V u_q + e_q     u_q = Σ_k p_k v(k-th item of the teacher) + λ v(conversation),  V item vectors ``[C, d]``
                          e_q exact matches and ratings

so they are made block by block (some conversations times some items) as often as they are needed. Lists are exact.

The adjustment is fitted to some items A alone: all that users wanted, and those with the steepest slope of the loss.
Over A the loss is exact, because the mass of all other items, exp(s_qj) summed over j ∉ A, is (they keep scale 1 and
bias 0). How far that is from fitting all items is known afterwards: the loss f is 2·penalty-strongly convex, so

    f(found) - min f ≤ ‖∇f(found)‖² / (4 · penalty)

whose gradient over all items two more passes give (`StreamedScores.gap`). With as many adjusted items as the catalog
has, it is the fit of `remap.adjust`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlpost_verifiers.catalog.remap import Adjustment, adjust_some, check_ratings, relevance_shares

_CONVERSATIONS, _ITEMS = 256, 8192
"""Scores of a block: 8 MB, which a core's cache nearly holds."""
_NO_MASS = 1e-12
"""Share of all mass below which rounding hides what the items that are not adjusted have."""


class Sparse:
    """A few numbers per conversation, by item.

    Args:
        rows: for each conversation the numbers by item.
    """

    def __init__(self, rows: Sequence[Mapping[int, float]]):
        counts = [len(row) for row in rows]
        self._row = np.repeat(np.arange(len(rows)), counts)
        self._item = np.fromiter((item for row in rows for item in row), np.int64, sum(counts))
        self._value = np.fromiter((value for row in rows for value in row.values()), np.float32, sum(counts))
        order = np.argsort(self._item, kind="stable")
        self._row, self._item, self._value = self._row[order], self._item[order], self._value[order]

    def add_to(self, block: np.ndarray, first: int) -> None:
        """Add the numbers of the items from ``first`` on to a block ``[conversation, item]``."""
        low, high = np.searchsorted(self._item, (first, first + block.shape[1]))
        np.add.at(block, (self._row[low:high], self._item[low:high] - first), self._value[low:high])


class StreamedScores:
    """Scores that are made block by block.

    Args:
        items: V ``[C, d]`` float32; may be mapped from a file.
        users: u ``[Q, d]`` float32.
        extra: e, for each conversation the numbers by item.
        adjusted: number of items that `fit` adjusts, besides those that users wanted.
    """

    def __init__(
        self, items: np.ndarray, users: np.ndarray, extra: Sequence[Mapping[int, float]], adjusted: int = 10_000
    ):
        self._items, self._users, self._extra, self._adjusted = items, users, extra, adjusted

    def best(
        self,
        places: Sequence[int],
        size: int,
        left_out: Sequence[Collection[int]],
        adjustment: Adjustment | None = None,
    ) -> list[list[int]]:
        """See `scores.Scores.best`."""
        found: list[list[int]] = []
        for start, batch in zip(range(0, len(places), _CONVERSATIONS), _batches(places), strict=True):
            hidden = Sparse([dict.fromkeys(out, -np.inf) for out in left_out[start : start + len(batch)]])
            best = _Best(len(batch), size)
            for first, block in self._blocks(batch):
                block = _adjusted(block, first, adjustment)
                hidden.add_to(block, first)
                best.take(block, first)
            found += best.lists()
        return found

    def reflected(self, ratings: Mapping[int, Mapping[int, float]], weight: float) -> StreamedScores:
        """See `scores.Scores.reflected`."""
        extra = [dict(row) for row in self._extra]
        for place, given in ratings.items():
            check_ratings(given)
            for item, rating in given.items():
                extra[place][item] = extra[place].get(item, 0.0) + weight * rating
        return StreamedScores(self._items, self._users, extra, self._adjusted)

    def fit(self, places: Sequence[int], wanted: Sequence[Sequence[int]], penalty: float) -> Adjustment:
        """See `scores.Scores.fit`; fits some items, see the module's docstring."""
        used, shares = relevance_shares(len(places), wanted)
        told = [places[place] for place in used]
        mass = self._log_mass(told)
        chosen = self._steepest(told, mass, {item for row in shares for item in row})
        table = np.concatenate([self._some(batch, chosen) for batch in _batches(told)])
        rest = np.full(len(told), -np.inf)
        if len(chosen) < len(self._items):
            share = np.array([np.exp(row.astype(np.float64) - one).sum() for row, one in zip(table, mass, strict=True)])
            rest = mass + np.log(np.maximum(1.0 - share, _NO_MASS))
        column = {int(item): number for number, item in enumerate(chosen)}
        found = adjust_some(table, [{column[i]: v for i, v in row.items()} for row in shares], rest, penalty)
        scale, bias = np.ones(len(self._items)), np.zeros(len(self._items))
        scale[chosen], bias[chosen] = found.scale, found.bias
        return replace(found, scale=scale, bias=bias)

    def gap(
        self, places: Sequence[int], wanted: Sequence[Sequence[int]], penalty: float, adjustment: Adjustment
    ) -> float:
        """Largest possible distance of an adjustment's loss from the least one over all items; infinite where nothing
        is penalised.
        """
        used, shares = relevance_shares(len(places), wanted)
        told = [places[place] for place in used]
        bias, scale = self._slopes(told, self._log_mass(told, adjustment), adjustment)
        for place, row in zip(told, shares, strict=True):
            items = np.fromiter(row, np.int64, len(row))
            share = np.fromiter(row.values(), np.float64, len(row)) / len(told)
            bias[items] -= share
            scale[items] -= share * self._some([place], items)[0]
        bias += 2 * penalty * adjustment.bias
        scale += 2 * penalty * (adjustment.scale - 1)
        return float((bias**2).sum() + (scale**2).sum()) / (4 * penalty) if penalty else float("inf")

    def _steepest(self, places: Sequence[int], mass: np.ndarray, wanted: Collection[int]) -> np.ndarray:
        """Numbers of the items to adjust, ascending: the wanted ones and those with the steepest slope."""
        if len(self._items) <= self._adjusted + len(wanted):
            return np.arange(len(self._items))
        bias, scale = self._slopes(places, mass)
        slope = np.hypot(bias, scale)
        slope[list(wanted)] = 0.0
        most = np.argpartition(-slope, self._adjusted)[: self._adjusted]
        return np.union1d(most, np.fromiter(wanted, np.int64, len(wanted)))

    def _slopes(
        self, places: Sequence[int], mass: np.ndarray, adjustment: Adjustment | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean over conversations of p and of p s, ``[C]`` each, where p is the softmax of the adjusted scores."""
        bias, scale = np.zeros(len(self._items)), np.zeros(len(self._items))
        for start, batch in zip(range(0, len(places), _CONVERSATIONS), _batches(places), strict=True):
            for first, block in self._blocks(batch):
                part = slice(first, first + block.shape[1])
                share = _adjusted(block.copy(), first, adjustment)
                share -= mass[start : start + len(batch), None].astype(np.float32)
                np.exp(share, out=share)
                bias[part] += share.sum(axis=0)
                share *= block
                scale[part] += share.sum(axis=0)
        return bias / len(places), scale / len(places)

    def _log_mass(self, places: Sequence[int], adjustment: Adjustment | None = None) -> np.ndarray:
        """Logarithm of the sum of exp over all items, ``[q]``, for these conversations."""
        found: list[np.ndarray] = []
        for batch in _batches(places):
            most, mass = np.full(len(batch), -np.inf), np.zeros(len(batch))
            for first, block in self._blocks(batch):
                block = _adjusted(block, first, adjustment)
                higher = np.maximum(most, block.max(axis=1))
                block -= higher[:, None].astype(np.float32)
                np.exp(block, out=block)
                mass = mass * np.exp(most - higher) + block.sum(axis=1, dtype=np.float64)
                most = higher
            found.append(most + np.log(mass))
        return np.concatenate(found)

    def _some(self, places: Sequence[int], items: np.ndarray) -> np.ndarray:
        """Scores ``[q, a]`` float32 of some items, in ascending order or not."""
        found = self._users[list(places)] @ np.asarray(self._items[items]).T
        column = {int(item): number for number, item in enumerate(items)}
        for row, place in enumerate(places):
            for item, value in self._extra[place].items():
                if item in column:
                    found[row, column[item]] += np.float32(value)
        return found

    def _blocks(self, places: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """First item, and scores ``[conversation, item]`` float32, of each block of items."""
        users = self._users[list(places)]
        extra = Sparse([self._extra[place] for place in places])
        for first in range(0, len(self._items), _ITEMS):
            block = users @ self._items[first : first + _ITEMS].T
            extra.add_to(block, first)
            yield first, block


class _Best:
    """The best items of some conversations so far.

    Args:
        count: number of conversations.
        size: most items of each.
    """

    def __init__(self, count: int, size: int):
        self._count, self._size = count, size
        self._row, self._item = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._value, self._least = np.zeros(0, np.float32), np.full(count, -np.inf, np.float32)

    def take(self, block: np.ndarray, first: int) -> None:
        """Look at the scores of the items from ``first`` on; blocks come in the catalog's order."""
        if first == 0 and block.shape[1] > self._size:
            least = np.partition(block, -self._size, axis=1)[:, -self._size]
            better = (block >= least[:, None]) & (block > -np.inf)
        else:
            better = block > self._least[:, None]  # of equals the earlier item stays
        row, column = np.nonzero(better)
        if not len(row):
            return
        row, item = np.append(self._row, row), np.append(self._item, column + first)
        value = np.append(self._value, block[better])
        order = np.lexsort((item, -value, row))
        row = row[order]
        begin = np.searchsorted(row, np.arange(self._count))
        kept = np.arange(len(row)) - begin[row] < self._size
        self._row, self._item, self._value = row[kept], item[order][kept], value[order][kept]
        full = np.bincount(self._row, minlength=self._count) == self._size
        last = np.searchsorted(self._row, np.arange(self._count), side="right") - 1
        self._least[full] = self._value[last[full]]

    def lists(self) -> list[list[int]]:
        """The items of each conversation, best first."""
        return [self._item[self._row == row].tolist() for row in range(self._count)]


def _batches(places: Sequence[int]) -> list[Sequence[int]]:
    return [places[start : start + _CONVERSATIONS] for start in range(0, len(places), _CONVERSATIONS)]


def _adjusted(block: np.ndarray, first: int, adjustment: Adjustment | None) -> np.ndarray:
    """The block itself, scaled and shifted where there is an adjustment."""
    if adjustment is not None:
        part = slice(first, first + block.shape[1])
        block *= adjustment.scale[part].astype(np.float32)
        block += adjustment.bias[part].astype(np.float32)
    return block
