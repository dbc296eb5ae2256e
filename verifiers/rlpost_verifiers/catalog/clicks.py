"""Logged feedback as rows: what users clicked on in lists that they were shown, each click over its rank's propensity.

A click at rank k says that the item was wanted *and* looked at; dividing by how likely the rank was to be looked at
makes rewards right on average (`rlpost.algorithms.propensity`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlpost.algorithms.propensity import estimate, inverse_weights
from rlpost.data.prompts import read_jsonl
from rlpost.errors import DataError, UserError
from rlpost_verifiers.catalog.lists import parse_title
from rlpost_verifiers.catalog.names import canonical, year_of
from rlpost_verifiers.catalog.wanted import Columns


def rows(
    path: str, propensities: Sequence[float] | Literal["estimate"] = "estimate", least: float = 0.05
) -> list[dict[str, Any]]:
    """The data source ``logged_clicks``.

    Args:
        path: JSON lines with ``prompt``, ``shown`` (items in the order they were shown, as ``Title (Year)`` or
            ``[title, year]``) and ``clicks`` (for each whether it was clicked).
        propensities: of the ranks, first to last; ``estimate``: from the log, for which items must have been shown at
            several ranks.
        least: smallest propensity that is divided by.

    Returns:
        The rows with a click: all columns, and ``groundtruth_with_release_year`` with a weight for each clicked item.

    Raises:
        DataError: for a row without these columns, or a log without a click.
        UserError: for propensities that are none, or cannot be estimated from this log.
    """
    read = [_shown(row, f"{path}, row {number}") for number, row in enumerate(read_jsonl(path))]
    clicked = [(row, [place for place, click in enumerate(clicks) if click]) for row, _, clicks in read]
    if not any(places for _, places in clicked):
        raise DataError(f"{path}: no click in {len(read)} rows; there is nothing to learn from")
    try:
        known = _estimated(read) if propensities == "estimate" else list(propensities)
        found = []
        for (row, places), (_, items, _) in zip(clicked, read, strict=True):
            weights = inverse_weights([place + 1 for place in places], known, least)
            wanted = [_named(items[place], weight) for place, weight in zip(places, weights, strict=True)]
            if wanted:
                found.append({**row, Columns().relevant: wanted})
        return found
    except ValueError as error:
        raise UserError(f"{path}: {error}; give propensities, or another log") from None


_Item = tuple[str, int | None]


def _shown(row: Mapping[str, Any], place: str) -> tuple[Mapping[str, Any], list[_Item], list[bool]]:
    shown, clicks = row.get("shown"), row.get("clicks")
    if not isinstance(shown, list) or not isinstance(clicks, list) or len(shown) != len(clicks):
        raise DataError(f"{place}: needs 'shown' and 'clicks', lists of one length (there are {', '.join(row)})")
    items: list[_Item] = []
    for one in shown:
        if isinstance(one, str):
            title, year = parse_title(one)
            items.append((title or one, year))
        elif isinstance(one, list) and len(one) == 2:
            items.append((str(one[0]), year_of(one[1])))
        else:
            raise DataError(f"{place}: 'shown' holds {one!r}; write 'Title (Year)' or [title, year]")
    return row, items, [bool(click) for click in clicks]


def _estimated(read: Sequence[tuple[Mapping[str, Any], list[_Item], list[bool]]]) -> list[float]:
    numbers: dict[tuple[str, int | None], int] = {}
    items, ranks, clicks = [], [], []
    for _, shown, clicked in read:
        for rank, ((title, year), click) in enumerate(zip(shown, clicked, strict=True), 1):
            items.append(numbers.setdefault((canonical(title), year), len(numbers)))
            ranks.append(rank)
            clicks.append(click)
    return estimate(items, ranks, clicks).tolist()


def _named(item: _Item, weight: float) -> dict[str, Any]:
    return {"title": item[0], "year": item[1], "weight": weight}
