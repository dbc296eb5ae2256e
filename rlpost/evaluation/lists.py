"""Figures of ranked lists, from a character for each place."""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.algorithms.intervals import with_errors
from rlpost.algorithms.ranking import Protocol, ndcg, recall
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
"""What a place of a list was found to be (`ItemVerdict.reason`), and its character."""
_NOT_RECOMMENDABLE = "sou"


def places(verdict: Verdict | None) -> tuple[str, int]:
    """The characters of a judged list and how many items were relevant; ``("", 0)`` for an answer that is no list."""
    if verdict is None or "relevant" not in verdict.evidence:
        return "", 0
    return "".join(MARKS.get(item.reason, "m") for item in verdict.items), int(verdict.evidence["relevant"])


def compact(marks: str) -> str:
    """The list as the released protocol reads it: without places that could not have been recommended."""
    return "".join(mark for mark in marks if mark not in _NOT_RECOMMENDABLE)


def list_figures(lists: Sequence[tuple[str, int]], ks: Sequence[int]) -> dict[str, float]:
    """Recall@k and nDCG@k over lists, each with its standard error and 95 % interval, by both protocols.

    Args:
        lists: characters of each list, and how many items were relevant (those with none take no part).
        ks: cuts.

    Returns:
        ``recall@k``, ``ndcg@k`` (strict: places kept), the same with `` released`` behind it (places that could not
        have been recommended dropped, ideal no longer than the list); ``in_catalog`` and ``duplicates`` as shares of
        places, ``places`` per list. Empty for no lists.
    """
    judged = [(marks, relevant) for marks, relevant in lists if relevant]
    if not judged:
        return {}
    found: dict[str, float] = {}
    protocols: tuple[tuple[Protocol, str], ...] = (("strict", ""), ("released", " released"))
    for protocol, suffix in protocols:
        gains = [([float(m == "h") for m in _read(marks, protocol)], [1.0] * relevant) for marks, relevant in judged]
        for k in ks:
            found |= with_errors(f"recall@{k}{suffix}", [recall(gain, wanted, k) for gain, wanted in gains])
            found |= with_errors(f"ndcg@{k}{suffix}", [ndcg(gain, wanted, k, protocol) for gain, wanted in gains])
    every = "".join(marks for marks, _ in judged)
    found["in_catalog"] = 1.0 - sum(mark in "ou" for mark in every) / max(len(every), 1)
    found["duplicates"] = every.count("d") / max(len(every), 1)
    found["places"] = len(every) / len(judged)
    return found


def _read(marks: str, protocol: Protocol) -> str:
    return marks if protocol == "strict" else compact(marks)
