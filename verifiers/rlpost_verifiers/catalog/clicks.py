"""Logged clicks as rows: items clicked in lists that were shown, each weighted by 1 / propensity of its rank.

A click at rank k means that the item was relevant *and* examined; dividing by the probability that the rank was
examined makes rewards unbiased (`rlpost.algorithms.propensity`), up to the bound ``least``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlpost.algorithms.propensity import estimate, inverse_weights
from rlpost.errors import DataError, UserError
from rlpost_verifiers.catalog.ground_truth import RELEVANT_KEY, names_of
from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.rows import read_rows


def rows(
    path: str,
    propensities: Sequence[float] | Literal["estimate"] = "estimate",
    least: float = 0.05,
    split: str | None = None,
) -> list[dict[str, Any]]:
    """The data source ``logged_clicks``.

    Args:
        path: JSON lines, Parquet or a folder written by ``save_to_disk``, with ``prompt``, ``shown`` (items in the
            order they were shown, as ``Title (Year)`` or ``[title, year]``) and ``clicks`` (whether each item was
            clicked).
        propensities: examination probability of each rank in (0, 1], first to last; ``estimate``: estimated from the
            log, in which items must have been shown at several ranks.
        least: smallest propensity that is divided by.
        split: split of a folder that holds several.

    Returns:
        The rows with a click: all columns, and ``groundtruth_with_release_year`` with a weight for each clicked item.

    Raises:
        DataError: for a row without ``shown`` and ``clicks``, or a log without a click.
        UserError: for propensities out of range, or a log from which they cannot be estimated.
    """
    log = [_shown(row, f"{path}, row {number}") for number, row in enumerate(read_rows(path, split))]
    if not any(any(clicks) for _, _, clicks in log):
        raise DataError(f"{path}: no click in {len(log)} rows; there is nothing to learn from")
    try:
        known = _estimated(log) if propensities == "estimate" else list(propensities)
        return [
            {**row, RELEVANT_KEY: _weighed(items, clicks, known, least)} for row, items, clicks in log if any(clicks)
        ]
    except ValueError as error:
        raise UserError(f"{path}: {error}; give propensities, or another log") from None


_Item = tuple[str, int | None]
_Shown = tuple[Mapping[str, Any], list[_Item], list[bool]]
"""A row, the items it shows, and whether each was clicked."""


def _shown(row: Mapping[str, Any], place: str) -> _Shown:
    shown, clicks = row.get("shown"), row.get("clicks")
    if not isinstance(shown, list) or not isinstance(clicks, list) or len(shown) != len(clicks):
        raise DataError(f"{place}: needs 'shown' and 'clicks', lists of one length (there are {', '.join(row)})")
    try:
        items = [(title, year) for title, year, _ in names_of(shown, "shown")]
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    strange = next((click for click in clicks if click not in (0, 1)), None)
    if strange is not None or None in clicks:
        raise DataError(f"{place}: 'clicks' holds {strange!r}; true or false (1 or 0) is needed for each shown item")
    return row, items, [bool(click) for click in clicks]


def _weighed(
    items: Sequence[_Item], clicks: Sequence[bool], propensities: Sequence[float], least: float
) -> list[dict[str, Any]]:
    """The clicked items, weighted by inverse propensity."""
    places = [place for place, click in enumerate(clicks) if click]
    weights = inverse_weights([place + 1 for place in places], propensities, least)
    return [
        {"title": items[place][0], "year": items[place][1], "weight": weight}
        for place, weight in zip(places, weights, strict=True)
    ]


def _estimated(log: Sequence[_Shown]) -> list[float]:
    numbers: dict[_Item, int] = {}
    items, ranks, clicks = [], [], []
    for _, shown, clicked in log:
        for rank, ((title, year), click) in enumerate(zip(shown, clicked, strict=True), 1):
            items.append(numbers.setdefault((canonical(title), year), len(numbers)))
            ranks.append(rank)
            clicks.append(click)
    return estimate(items, ranks, clicks).tolist()
