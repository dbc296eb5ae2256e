"""Metrics of ranked lists: how many relevant items they hold and at which ranks, and what their other items are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.algorithms.intervals import with_errors
from rlpost.algorithms.ranking import Protocol, coverage, ndcg, recall
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
        outside: number of relevant items that the catalog lacks.

    >>> Listed("hm", 3, ("Alien (1979)", "Up (2009)")).novelty is None
    True
    """

    marks: str
    relevant: int
    items: tuple[str | None, ...] = ()
    bits: tuple[float | None, ...] = ()
    catalog: int = 0
    outside: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Listed:
        """Make a list from the JSON form of `dataclasses.asdict`."""
        return cls(**{**values, "items": tuple(values["items"]), "bits": tuple(values["bits"])})

    @property
    def novelty(self) -> float | None:
        """Mean self-information of its items in bits; None if none is known."""
        known = [value for value in self.bits if value is not None]
        return sum(known) / len(known) if known else None

    def gains(self, protocol: Protocol = "strict") -> list[float]:
        """1 for a hit, 0 for any other place; the protocol ``released`` drops items that cannot be recommended."""
        kept = self.marks if protocol == "strict" else [mark for mark in self.marks if mark not in _NOT_RECOMMENDABLE]
        return [float(mark == "h") for mark in kept]

    def recall(self, k: int, protocol: Protocol = "strict") -> float:
        """See `rlpost.algorithms.ranking.recall`."""
        return recall(self.gains(protocol), [1.0] * self.relevant, k)

    def ndcg(self, k: int, protocol: Protocol = "strict") -> float:
        """See `rlpost.algorithms.ranking.ndcg`."""
        return ndcg(self.gains(protocol), [1.0] * self.relevant, k, protocol)

    def share(self, marks: str) -> float:
        """Share of its places with one of these marks."""
        return sum(mark in marks for mark in self.marks) / len(self.marks)


def listed(verdict: Verdict | None) -> Listed | None:
    """The list that a verdict describes; None for an answer that is no list, or one with nothing to find."""
    if verdict is None or not verdict.evidence.get("relevant"):
        return None
    evidence = verdict.evidence
    return Listed(
        marks="".join(MARKS.get(item.reason, "m") for item in verdict.items),
        relevant=int(evidence["relevant"]),
        items=tuple(evidence.get("items", ())),
        bits=tuple(evidence.get("bits", ())),
        catalog=int(evidence.get("catalog", 0)),
        outside=int(evidence.get("relevant_outside", 0)),
    )


def list_figures(lists: Sequence[Listed], ks: Sequence[int]) -> dict[str, float]:
    """Recall@k and nDCG@k by both protocols, and the composition of the lists.

    Args:
        lists: one list per prompt.
        ks: cut-offs k.

    Returns:
        ``recall@k``, ``ndcg@k`` (strict: places kept), the same names with `` released`` appended (places that could
        not have been recommended dropped, ideal no longer than the list); ``in_catalog`` and ``duplicates``, shares of
        a list's places; ``novelty`` in bits. Each is a mean over lists with its standard error and 95 % interval.
        Also ``places`` per list, ``relevant_outside`` per list (relevant items that the catalog lacks, if any does),
        and ``coverage`` of the catalog with its standard error, which grows with the number
        of lists. Empty for no lists.
    """
    if not lists:
        return {}
    found: dict[str, float] = {}
    for protocol, suffix in _PROTOCOLS.items():
        for k in ks:
            found |= with_errors(f"recall@{k}{suffix}", [one.recall(k, protocol) for one in lists])
            found |= with_errors(f"ndcg@{k}{suffix}", [one.ndcg(k, protocol) for one in lists])
    filled = [one for one in lists if one.marks]
    if filled:
        found |= with_errors("in_catalog", [1.0 - one.share("ou") for one in filled])
        found |= with_errors("duplicates", [one.share("d") for one in filled])
    novelties = [one.novelty for one in lists if one.novelty is not None]
    if novelties:
        found |= with_errors("novelty", novelties)
    if lists[0].catalog:
        named = [[item for item in one.items if item is not None] for one in lists]
        found["coverage"], found["coverage_se"] = coverage(named, lists[0].catalog)
    if any(one.outside for one in lists):
        found["relevant_outside"] = sum(one.outside for one in lists) / len(lists)
    found["places"] = sum(len(one.marks) for one in lists) / len(lists)
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
