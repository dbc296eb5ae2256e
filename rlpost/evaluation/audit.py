"""Audit of exposure: how far two recommenders' lists for the same users differ in what they show, beside chance.

A list exposes an item at its first place; a repetition shows nothing, as in TREC's runs, which cannot hold one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlpost.algorithms.exposure import (
    Attention,
    Swaps,
    attention,
    exceedance,
    jensen_shannon,
    normalised,
    simultaneous_intervals,
    sparse_exposure,
    swap_error,
    swaps,
    total_variation,
)
from rlpost.errors import DataError, UserError
from rlpost.evaluation.ranked import Ranking

LEVEL = 0.95
NO_GROUP = "(no group)"
_FEW_USERS = 30
"""Below this number of users a bootstrap's intervals are known to be too narrow."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """How exposure is counted and compared.

    Attributes:
        model: model of attention, see `rlpost.algorithms.exposure.attention`.
        patience: of the model ``rbp``.
        cut: only the first ``cut`` places are seen; None: all.
        movers: number of items to list.
        draws: number of draws of the noise.
        seed: seed of draws and resamples.

    >>> AuditSettings().described
    'log discount'
    """

    model: Attention = "log"
    patience: float = 0.8
    cut: int | None = None
    movers: int = 10
    draws: int = 999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 99:
            raise UserError(f"audit: draws is {self.draws}; give 99 or more, or no p-value can be below 0.01")
        if self.movers < 0:
            raise UserError(f"audit: movers is {self.movers}; give 0 or more")
        try:
            attention(1, self.model, self.patience, self.cut)
        except ValueError as error:
            raise UserError(f"audit: {error}") from None

    @property
    def described(self) -> str:
        """The model of attention in words."""
        name = {"log": "log discount", "rbp": f"RBP, patience {self.patience:g}", "top": "number of lists"}[self.model]
        return name if self.cut is None else f"{name}, first {self.cut} places"


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance of two distributions of exposure, beside what it is if the lists of random users change sides.

    Attributes:
        value: the distance.
        noise: its mean under such swaps.
        noise_high: their 95 % quantile.
        p: share of swaps that give as much or more, the observed one among them.

    >>> Distance(0.4, 0.1, 0.2, 0.001).value
    0.4
    """

    value: float
    noise: float
    noise_high: float
    p: float


@dataclass(frozen=True, slots=True)
class Shift:
    """The exposure of one group or item.

    Attributes:
        name: of the group or item.
        first: its share of all exposure by the first recommender.
        second: its share by the second.
        low: lower end of a 95 % interval of second - first. The intervals of all groups hold at once, and so do those
            of all items.
        high: its upper end.
        p: p-value against no difference, adjusted for all groups or all items (Westfall and Young's largest statistic).

    >>> round(Shift("new", 0.2, 0.3, 0.05, 0.15, 0.001).difference, 9)
    0.1
    """

    name: str
    first: float
    second: float
    low: float
    high: float
    p: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Audit:
    """The comparison of two recommenders.

    Attributes:
        users: number of users (clusters of queries), which are what is resampled.
        queries: number of queries with a list of both.
        items: number of items that either shows.
        unnamed: share of the attention of each that goes to places without an item, repetitions among them.
        variation: total variation over items.
        divergence: Jensen–Shannon divergence over items, in bits.
        group_variation: total variation over groups; None without groups.
        groups: every group, the largest share first.
        movers: the items whose exposure moved most.
        moved: number of items whose difference is significant at 5 % among all.
        notes: what a reader has to know.
    """

    users: int
    queries: int
    items: int
    unnamed: tuple[float, float]
    variation: Distance
    divergence: Distance
    group_variation: Distance | None
    groups: tuple[Shift, ...]
    movers: tuple[Shift, ...]
    moved: int
    notes: tuple[str, ...]


def audit(
    first: Sequence[Ranking],
    second: Sequence[Ranking],
    settings: AuditSettings | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Audit:
    """Compare what two recommenders show to the same users.

    Args:
        first: the baseline's lists.
        second: the other's; queries that only one of them has are left out and counted.
        settings: how exposure is counted.
        groups: groups of each item; an item in several counts in each with an equal part. None: the groups that the
            lists name, if they do.

    Raises:
        DataError: if the two have no query in common, or fewer than two users, or one of them shows no item.
    """
    chosen = settings or AuditSettings()
    pairs, notes = _paired(first, second)
    users, owners = _users(pairs)
    if len(users) < 2:
        raise DataError("audit: all lists are of one user, who says nothing about others; give lists of several")
    names = sorted({item for pair in pairs for one in pair for item in one.items if item is not None})
    number = {name: place for place, name in enumerate(names)}
    longest = max((len(one.items) for pair in pairs for one in pair), default=0)
    weights = attention(longest, chosen.model, chosen.patience, chosen.cut)
    shape = (len(users), max(len(names), 1))
    a, b = (
        sparse_exposure([_numbers(pair[side], number) for pair in pairs], owners, shape, weights) for side in (0, 1)
    )
    for matrix, side in ((a, "first"), (b, "second")):
        if not matrix.sum() > 0:
            raise DataError(f"audit: the {side} shows no item to any of these {len(users)} users; nothing to compare")
    if len(users) < _FEW_USERS:
        notes.append(f"{len(users)} users are few: intervals over less than {_FEW_USERS} are known to be too narrow")
    shared = {i for pair in pairs for i in pair[0].items} & {i for pair in pairs for i in pair[1].items} - {None}
    if not shared:
        notes.append("the two show no item in common: are their ids the same? (--names maps docnos to names)")
    drawn = swaps(a, b, chosen.draws, chosen.seed)
    variation, divergence = _distances(a, b, drawn)
    items = _item_shifts(names, a, b, drawn)
    known = groups if groups is not None else _named_groups(pairs)
    group_variation, group_shifts = _by_group(names, a, b, known, chosen) if known else (None, ())
    if groups is not None and (lost := sum(name not in groups for name in names)):
        notes.append(f"{lost} of {len(names)} items have no group; they are {NO_GROUP}")
    attended = [sum(float(weights[: len(pair[side].items)].sum()) for pair in pairs) for side in (0, 1)]
    return Audit(
        users=len(users),
        queries=len(pairs),
        items=len(names),
        unnamed=(_rest(a, attended[0]), _rest(b, attended[1])),
        variation=variation,
        divergence=divergence,
        group_variation=group_variation,
        groups=group_shifts,
        movers=tuple(items[: chosen.movers]),
        moved=sum(one.p <= 1 - LEVEL for one in items),
        notes=tuple(notes),
    )


def _paired(first: Sequence[Ranking], second: Sequence[Ranking]) -> tuple[list[tuple[Ranking, Ranking]], list[str]]:
    ours, theirs = {one.query: one for one in first}, {one.query: one for one in second}
    pairs = [(one, theirs[query]) for query, one in ours.items() if query in theirs]
    if not pairs:
        example = f"{next(iter(ours), '')!r} and {next(iter(theirs), '')!r}"
        raise DataError(f"audit: no query has a list of both (they have {example}); compare lists for the same queries")
    notes: list[str] = []
    for side, own, other in (("first", ours, theirs), ("second", theirs, ours)):
        if lost := [query for query in own if query not in other]:
            notes.append(f"{len(lost)} of {len(own)} queries have a list of the {side} only ({lost[0]!r}); left out")
    return pairs, notes


def _numbers(ranking: Ranking, number: Mapping[str, int]) -> list[int | None]:
    """Number of the item at each place, None where there is none that the list has not shown before."""
    first: dict[str | None, int] = {}
    for place, item in enumerate(ranking.items):
        first.setdefault(item, place)
    return [
        number[item] if item is not None and first[item] == place else None for place, item in enumerate(ranking.items)
    ]


def _users(pairs: Sequence[tuple[Ranking, Ranking]]) -> tuple[list[str], list[int]]:
    """Names of the users, and the number of each pair's."""
    named = [f"cluster {a.cluster or b.cluster}" if a.cluster or b.cluster else f"query {a.query}" for a, b in pairs]
    number = {name: place for place, name in enumerate(dict.fromkeys(named))}
    return list(number), [number[name] for name in named]


def _named_groups(pairs: Sequence[tuple[Ranking, Ranking]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in (one for pair in pairs for one in pair):
        for item, group in zip(one.items, one.groups, strict=False):
            if item is not None and group is not None:
                found.setdefault(item, [group])
    return found


def _shares(matrix: Any) -> np.ndarray:
    return normalised(np.asarray(matrix.sum(axis=0), np.float64).ravel())


def _distances(a: Any, b: Any, drawn: Swaps) -> tuple[Distance, Distance]:
    p, q = _shares(a), _shares(b)
    return (
        _distance(float(total_variation(p, q)), drawn.variation),
        _distance(float(jensen_shannon(p, q)), drawn.divergence),
    )


def _distance(value: float, noise: np.ndarray) -> Distance:
    return Distance(value, float(noise.mean()), float(np.quantile(noise, LEVEL)), float(exceedance(value, noise)))


def _item_shifts(names: Sequence[str], a: Any, b: Any, drawn: Swaps) -> list[Shift]:
    """All items, the largest difference first. An interval holds what the swaps, shifted, would not reject."""
    p, q, error = _shares(a), _shares(b), swap_error(a, b)
    scaled = np.divide(np.abs(q - p), error, out=np.zeros_like(p), where=error > 0)
    adjusted, spread = exceedance(scaled, drawn.largest), float(np.quantile(drawn.largest, LEVEL)) * error
    order = sorted(range(len(names)), key=lambda i: (-abs(q[i] - p[i]), names[i]))
    return [
        Shift(
            names[i], float(p[i]), float(q[i]), float(q[i] - p[i] - spread[i]), float(q[i] - p[i] + spread[i]),
            float(adjusted[i]),
        )
        for i in order
    ]  # fmt: skip


def _by_group(
    names: Sequence[str], a: Any, b: Any, groups: Mapping[str, Sequence[str]], settings: AuditSettings
) -> tuple[Distance, tuple[Shift, ...]]:
    of_item = [list(dict.fromkeys(groups.get(name, ()))) or [NO_GROUP] for name in names]
    titles = sorted({group for own in of_item for group in own})
    number = {title: place for place, title in enumerate(titles)}
    owners = [place for place, own in enumerate(of_item) for _ in own]
    membership = sparse_exposure([[number[g]] for own in of_item for g in own], owners, (len(names), len(titles)),
                                 np.ones(1))  # fmt: skip
    membership = membership.multiply(1.0 / np.array([[len(own)] for own in of_item])).tocsr()
    a, b = a @ membership, b @ membership
    drawn = swaps(a, b, settings.draws, settings.seed)
    low, high = simultaneous_intervals(b.toarray(), a.toarray(), LEVEL, seed=settings.seed)
    p, q, error = _shares(a), _shares(b), swap_error(a, b)
    adjusted = exceedance(np.divide(np.abs(q - p), error, out=np.zeros_like(p), where=error > 0), drawn.largest)
    found = [
        Shift(title, float(p[i]), float(q[i]), float(low[i]), float(high[i]), float(adjusted[i]))
        for i, title in enumerate(titles)
    ]
    ordered = sorted(found, key=lambda one: (-max(one.first, one.second), one.name))
    return _distances(a, b, drawn)[0], tuple(ordered)


def _rest(matrix: Any, attended: float) -> float:
    return max(1.0 - float(matrix.sum()) / attended, 0.0) if attended else 0.0
