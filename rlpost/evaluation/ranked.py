"""Ranked lists of a recommender, whoever made them: ours, in the outcomes of an evaluation, or somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlpost.evaluation.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Ranking:
    """The list for one query.

    Attributes:
        query: id of the query (of ours: of the prompt).
        items: name or id of the item at each place; None for a place without one.
        cluster: what the query has in common with others, such as the user who asked; empty: nothing.
        groups: group of the item at each place, where that is known.
        reasons: why a place has no item, such as ``duplicate``, where that is known; empty for a place that has one.

    >>> Ranking("q1", ("Alien (1979)", None)).items[0]
    'Alien (1979)'
    """

    query: str
    items: tuple[str | None, ...]
    cluster: str = ""
    groups: tuple[str | None, ...] = ()
    reasons: tuple[str, ...] = ()


def of_outcomes(outcomes: Sequence[Outcome]) -> list[Ranking]:
    """The greedy lists of an evaluation; prompts whose list was not judged have none."""
    return [
        Ranking(one.id, one.listed.items, one.cluster, one.listed.groups) for one in outcomes if one.listed is not None
    ]
