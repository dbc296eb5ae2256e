"""Metrics of ranked lists: how many relevant items they hold and at which ranks, and what their other items are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.algorithms.intervals import with_errors
from rlpost.algorithms.ranking import Protocol, coverage, exposure, gini, ndcg, recall, weighted_recall
from rlpost.types import Verdict

MARKS = {
    "hit": "h",
    "miss": "m",
    "relevant_elsewhere": "e",
    "seen": "s",
    "duplicate": "d",
    "out_of_catalog": "o",
    "unparsable": "u",
}
"""The verdict on a place of a list (`ItemVerdict.reason`), and the character that stands for it."""
_NOT_RECOMMENDABLE = "sou"
_GROUPS = 8
"""Most groups of items whose exposure is reported; the rest is one group, ``other``."""
_PROTOCOLS: dict[Protocol, str] = {"strict": "", "released": " released"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A scored list.

    Attributes:
        marks: one character of `MARKS` for each place.
        relevant: number of relevant items to find.
        items: catalog item at each place, None where the text is not an item.
        bits: self-information of each place's item, where popularity is known (`rlpost.algorithms.ranking`).
        catalog: number of items in the catalog, 0 if unknown.
        relevances: relevance of every relevant item, such as the weight of a click; empty: 1 each.
        scores: relevance found at each place; empty: 1 at each hit.
        groups: group of the item at each place, where items have groups.
        outside: number of relevant items that the catalog lacks.
        offered: whether each place's item is a candidate of the prompt, None where the text is not an item; empty:
            the prompt offers none.
        reachable: number of relevant items among the prompt's candidates; None: it offers none.
        relevant_items: catalog item of each of ``relevances``, as far as they are in the catalog; empty: not known.

    >>> Listed("hm", 3, ("Alien (1979)", "Up (2009)")).novelty is None
    True
    """

    marks: str
    relevant: int
    items: tuple[str | None, ...] = ()
    bits: tuple[float | None, ...] = ()
    catalog: int = 0
    relevances: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    groups: tuple[str | None, ...] = ()
    outside: int = 0
    offered: tuple[bool | None, ...] = ()
    reachable: int | None = None
    relevant_items: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Listed:
        """Make a list from the JSON form of `dataclasses.asdict`."""
        plain: dict[str, Any] = {k: tuple[Any, ...](v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    @property
    def novelty(self) -> float | None:
        """Mean self-information of its items in bits; None if none is known."""
        known = [value for value in self.bits if value is not None]
        return sum(known) / len(known) if known else None

    def gains(self, protocol: Protocol = "strict") -> list[float]:
        """The relevance of a hit, 0 for any other place; the protocol ``released`` drops items that cannot be
        recommended.
        """
        worth = self.scores or [1.0] * len(self.marks)
        return [
            value if mark == "h" else 0.0
            for mark, value in zip(self.marks, worth, strict=True)
            if protocol == "strict" or mark not in _NOT_RECOMMENDABLE
        ]

    @property
    def ideal(self) -> Sequence[float]:
        """Relevance of every relevant item."""
        return self.relevances or [1.0] * self.relevant

    def recall(self, k: int, protocol: Protocol = "strict") -> float:
        """See `rlpost.algorithms.ranking.recall`; `weighted_recall` where relevances are weights."""
        found = weighted_recall if self.relevances else recall
        return found(self.gains(protocol), self.ideal, k)

    def ndcg(self, k: int, protocol: Protocol = "strict") -> float:
        """See `rlpost.algorithms.ranking.ndcg`."""
        return ndcg(self.gains(protocol), self.ideal, k, protocol)

    def share(self, marks: str) -> float:
        """Share of its places with one of these marks."""
        return sum(mark in marks for mark in self.marks) / len(self.marks)


def listed(verdict: Verdict | None) -> Listed | None:
    """The list that a verdict describes; None for an answer that is no list, or one with nothing to find."""
    if verdict is None or not verdict.evidence.get("relevant"):
        return None
    evidence = verdict.evidence
    relevances = tuple(evidence.get("relevances", ()))
    return Listed(
        marks="".join(MARKS.get(item.reason, "m") for item in verdict.items),
        relevant=int(evidence["relevant"]),
        items=tuple(evidence.get("items", ())),
        bits=tuple(evidence.get("bits", ())),
        catalog=int(evidence.get("catalog", 0)),
        relevances=relevances,
        scores=tuple(item.score for item in verdict.items) if relevances else (),
        groups=tuple(evidence.get("groups", ())),
        outside=int(evidence.get("relevant_outside", 0)),
        offered=tuple(evidence.get("candidates_at", ())),
        reachable=evidence.get("candidates_relevant"),
        relevant_items=tuple(evidence.get("relevant_items", ())),
    )


def list_figures(
    lists: Sequence[Listed], ks: Sequence[int], clusters: Sequence[str] | None = None, size: int | None = None
) -> dict[str, float]:
    """Recall@k and nDCG@k by both protocols, and the composition of the lists.

    Args:
        lists: one list per prompt.
        ks: cut-offs k.
        clusters: the conversation that each prompt comes from; see `rlpost.algorithms.intervals.over_problems`.
        size: number of items that the prompts ask for; None: unknown.

    Returns:
        ``recall@k``, ``ndcg@k`` (strict: places kept), the same names with `` released`` appended (places that could
        not have been recommended dropped, ideal no longer than the list); ``in_catalog``, ``duplicates`` and ``seen``,
        shares of a list's places; ``novelty`` in bits; ``exact_length``, share of the lists with ``size`` places;
        where prompts offer candidates, ``candidates_recall``, the share of the relevant items among them, which bounds
        the recall of lists of candidates, and ``left_candidates``, the share of places that no candidate fills. Each
        is a mean over lists with its standard error and 95 % interval. Also ``places`` and ``relevant_outside`` per
        list (relevant items that the catalog lacks, if any does), ``coverage`` of the catalog with its standard error,
        which grows with the number of lists, ``gini`` of its items' recommendations, and ``exposure/<group>`` where
        items have groups. Empty for no lists.
    """
    if not lists:
        return {}
    found: dict[str, float] = {}

    def measured(name: str, values: Sequence[float | None]) -> None:
        known = [place for place, value in enumerate(values) if value is not None]
        if known:
            named = None if clusters is None else [clusters[place] for place in known]
            found.update(with_errors(name, [value for value in values if value is not None], named))

    for protocol, suffix in _PROTOCOLS.items():
        for k in ks:
            measured(f"recall@{k}{suffix}", [one.recall(k, protocol) for one in lists])
            measured(f"ndcg@{k}{suffix}", [one.ndcg(k, protocol) for one in lists])
    measured("in_catalog", [1.0 - one.share("ou") if one.marks else None for one in lists])
    measured("duplicates", [one.share("d") if one.marks else None for one in lists])
    measured("seen", [one.share("s") if one.marks else None for one in lists])
    measured("novelty", [one.novelty for one in lists])
    if size is not None:
        measured("exact_length", [float(len(one.marks) == size) for one in lists])
    measured("candidates_recall", [None if one.reachable is None else one.reachable / one.relevant for one in lists])
    measured(
        "left_candidates",
        [sum(not at for at in one.offered) / len(one.offered) if one.offered else None for one in lists],
    )
    if any(one.outside for one in lists):
        found["relevant_outside"] = sum(one.outside for one in lists) / len(lists)
    found["places"] = sum(len(one.marks) for one in lists) / len(lists)
    return found | _spread(lists)


def _spread(lists: Sequence[Listed]) -> dict[str, float]:
    """How recommendations are spread over the catalog and its groups."""
    found: dict[str, float] = {}
    named = [[item for item in one.items if item is not None] for one in lists]
    if lists[0].catalog:
        found["coverage"], found["coverage_se"] = coverage(named, lists[0].catalog)
        counts = Counter(item for row in named for item in row)
        if counts:
            found["gini"] = gini([float(count) for count in counts.values()], lists[0].catalog)
    shares = exposure([one.groups for one in lists])
    order = sorted(shares, key=lambda group: (-shares[group], group))
    found |= {f"exposure/{group}": shares[group] for group in order[:_GROUPS]}
    if order[_GROUPS:]:
        found["exposure/other"] = sum(shares[group] for group in order[_GROUPS:])
    return found


def leads(lists: Sequence[Listed], baselines: Mapping[str, Sequence[Listed]], ks: Sequence[int],
          clusters: Sequence[str] | None = None) -> dict[str, float]:  # fmt: skip
    """How far lists are ahead of the best baseline, paired by prompt.

    Args:
        lists: one list per prompt.
        baselines: lists for the same prompts in the same order, by name.
        ks: cut-offs k.
        clusters: as in `list_figures`.

    Returns:
        ``recall@k lead`` and ``ndcg@k lead``, the mean difference to the baseline with the highest mean of that
        measure, with standard error and 95 % interval: below 0 where a simple method is better. Empty without
        baselines.
    """
    found: dict[str, float] = {}
    for k in ks if lists else ():
        for name in ("recall", "ndcg"):
            own = [getattr(one, name)(k) for one in lists]
            others = [[getattr(one, name)(k) for one in other] for other in baselines.values()]
            if others:
                best = max(others, key=sum)
                found |= with_errors(f"{name}@{k} lead", [a - b for a, b in zip(own, best, strict=True)], clusters)
    return found


def popularity_shift(before: Sequence[Listed], after: Sequence[Listed]) -> dict[str, float]:
    """Mean over prompts of how many bits more popular the items of a list have become, with its errors.

    Args:
        before: lists of the reference policy.
        after: lists of another policy for the same prompts, in the same order.

    Returns:
        ``popularity_shift`` with its standard error and interval: positive where recommendations moved towards popular
        items. Empty where popularity is not known.
    """
    pairs = [(b.novelty, a.novelty) for b, a in zip(before, after, strict=True)]
    moved = [b - a for b, a in pairs if b is not None and a is not None]
    return with_errors("popularity_shift", moved) if moved else {}
