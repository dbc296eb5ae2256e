"""TREC's files of runs and judgements (qrels), as trec_eval, pytrec_eval and ir_measures read them.

A line of a run is ``qid Q0 docno rank score tag``, one of qrels ``qid 0 docno relevance``, separated by blanks. Readers
sort by score and break ties by docno, refuse a docno that a query names twice, take whole numbers for relevance, and
average over the queries that occur in both files. So here scores fall by one from place to place, and a place that
holds no document of its own (a repetition, an invention, text that is no item) keeps its rank under a placeholder:
``~`` and what it is. A query with an empty list has one line, ``~empty``, and thus counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from rlpost.errors import DataError
from rlpost.evaluation.ranked import Ranking

PLACEHOLDER = "~"
"""Begins the docno of a place that holds no document of its own."""
EMPTY, HIT = "~empty", "~hit-"
"""The one line of an empty list; a hit of which only the place is known."""

_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "%\"'")
_LARGEST_GRADE = 10_000
"""trec_eval holds an array with a cell for every grade up to the largest."""

_SHOWN = 60
"""Characters of a strange line in a message."""


def safe_id(name: str) -> str:
    """A name as one word of ASCII, different for different names: blanks, quotation marks, ``%`` and all other letters
    are percent-encoded, and so is a ``~`` at the beginning.

    >>> safe_id("Amélie (2001)"), safe_id("~empty")
    ('Am%C3%A9lie%20(2001)', '%7Eempty')
    """
    found = quote(name, safe=_SAFE, errors="surrogatepass") or "%"
    return f"%7E{found[1:]}" if found.startswith(PLACEHOLDER) else found


def run_lines(run: Mapping[str, Sequence[str]], tag: str) -> Iterator[str]:
    """Lines of a run; the scores of a list of n places are n to 1.

    >>> next(run_lines({"q1": ["d7"]}, "mine"))
    'q1 Q0 d7 1 1 mine'
    """
    for query, documents in run.items():
        for rank, docno in enumerate(documents, 1):
            yield f"{query} Q0 {docno} {rank} {len(documents) - rank + 1} {safe_id(tag)}"


def whole_grades(qrels: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, dict[str, int]], float]:
    """Relevances as whole numbers, and what they were multiplied with: 1 where they are whole already. nDCG does not
    change by a common factor.

    Raises:
        DataError: for a relevance that is not finite, or above 0 and too small beside the largest.
    """
    values = [value for judged in qrels.values() for value in judged.values()]
    if strange := [value for value in values if not math.isfinite(value)]:
        raise DataError(f"relevance {strange[0]} is no number that qrels can hold")
    largest = max(values, default=1.0)
    factor = 1.0
    if any(value != round(value) for value in values):
        factor = 10.0 ** max(math.floor(math.log10(_LARGEST_GRADE / max(largest, math.ulp(0.0)))), 0)
    found = {query: {doc: round(value * factor) for doc, value in judged.items()} for query, judged in qrels.items()}
    lost = next(
        (qrels[q][d] for q, judged in found.items() for d, grade in judged.items() if not grade and qrels[q][d] > 0),
        None,
    )
    if lost is not None:
        raise DataError(
            f"relevance {lost} becomes 0 as a whole number beside {largest}; give relevances closer together"
        )
    return found, factor


def qrels_lines(qrels: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Lines of qrels."""
    for query, judged in qrels.items():
        for docno, grade in judged.items():
            yield f"{query} 0 {docno} {grade}"


def read_run(lines: Iterable[str], where: str) -> tuple[list[Ranking], list[str]]:
    """The lists of a run in trec_eval's order (score, then docno, both falling), and notes about it.

    Args:
        lines: lines of the file.
        where: name of the file in messages.

    Returns:
        Rankings; their items are docnos, None for a placeholder of ours.

    Raises:
        DataError: for a line in another form, a docno twice in a query, or no lines.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for place, line in _numbered(lines):
        cells = line.split()
        if len(cells) != 6:
            raise DataError(
                f"{where}, line {place}: {line.strip()[:_SHOWN]!r} has {len(cells)} columns; a run has six, qid Q0 "
                "docno rank score tag, and no blanks in them"
            )
        query, _, docno, rank, score, _ = cells
        value, number = _number(score), _number(rank)
        if value is None or number is None:
            raise DataError(f"{where}, line {place}: rank {rank!r} and score {score!r} must be numbers")
        if docno in found.setdefault(query, {}):
            raise DataError(f"{where}, line {place}: query {query!r} names {docno!r} twice; keep its best place")
        found[query][docno] = (value, int(number))
    if not found:
        raise DataError(f"{where}: no lines; give a run, qid Q0 docno rank score tag")
    rankings: list[Ranking] = []
    turned = 0
    for query, scored in found.items():
        order = sorted(sorted(scored, reverse=True), key=lambda docno: -scored[docno][0])
        ranks = [scored[docno][1] for docno in order]
        turned += ranks != sorted(ranks)
        kept = [docno for docno in order if docno != EMPTY]
        items = tuple(None if _stands_in(docno) else docno for docno in kept)
        reasons = tuple(_reason(docno) if _stands_in(docno) else "" for docno in kept)
        rankings.append(Ranking(query, items, reasons=reasons if any(reasons) else ()))
    told = f"{where}: ranks and scores disagree in {turned} of {len(found)} queries; scores decide, as in trec_eval"
    return rankings, [told] if turned else []


def read_qrels(lines: Iterable[str], where: str) -> dict[str, dict[str, float]]:
    """Relevances by query and docno; TREC's four columns, or BEIR's three (query, document, score) with or without a
    header.

    Raises:
        DataError: for a line in another form, a document with two relevances, or no lines.
    """
    found: dict[str, dict[str, float]] = {}
    for place, line in _numbered(lines):
        cells = line.split()
        if len(cells) not in (3, 4):
            raise DataError(
                f"{where}, line {place}: {line.strip()[:_SHOWN]!r} has {len(cells)} columns; qrels have four, qid 0 "
                "docno relevance"
            )
        value = _number(cells[-1])
        if value is None and place == 1 and len(cells) == 3:
            continue  # BEIR's header
        if value is None:
            raise DataError(f"{where}, line {place}: relevance {cells[-1]!r} is no number")
        judged = found.setdefault(cells[0], {})
        if judged.setdefault(cells[-2], value) != value:
            raise DataError(f"{where}, line {place}: {cells[-2]!r} has two relevances for query {cells[0]!r}")
    if not found:
        raise DataError(f"{where}: no lines; give qrels, qid 0 docno relevance")
    return found


def _stands_in(docno: str) -> bool:
    return docno.startswith(PLACEHOLDER) and not docno.startswith(HIT)


def _reason(docno: str) -> str:
    """What a placeholder such as ``~duplicate-3`` stands for."""
    return docno.removeprefix(PLACEHOLDER).rpartition("-")[0]


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((place, line) for place, line in enumerate(lines, 1) if line.strip())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
