"""Lists of evaluations under TREC's ids, and lists of other systems judged as an evaluation of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlpost.errors import DataError
from rlpost.evaluation.lists import MARKS, Listed
from rlpost.evaluation.outcomes import Outcome
from rlpost.evaluation.ranked import Ranking
from rlpost.evaluation.trec import EMPTY, HIT, PLACEHOLDER, safe_id

Places = Literal["keep", "drop"]

_REASONS = {mark: reason for reason, mark in MARKS.items()}


@dataclass(slots=True)
class Export:
    """Lists and judgements under TREC's ids.

    Attributes:
        run: docnos of each query, in order.
        qrels: relevance of each query's relevant documents, above 0.
        names: name of each docno.
        queries: id of each query's prompt, by qid.
        notes: what a reader has to know, one line each.
    """

    run: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    qrels: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    names: dict[str, str] = field(default_factory=dict[str, str])
    queries: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


def export(outcomes: Sequence[Outcome], docnos: Mapping[str, str] | None = None, places: Places = "keep") -> Export:
    """The judged lists of an evaluation, and what is relevant to their prompts.

    Args:
        outcomes: outcomes of an evaluation.
        docnos: docno of items by name, such as the catalog's ids; others get `safe_id`.
        places: what becomes of places without a document: they ``keep`` their rank, as in our strict measures, or are
            dropped and what follows moves up.

    Raises:
        DataError: if no list was judged, or two items have one docno.
    """
    known, found = docnos or {}, Export()
    lists = [(one.id, one.listed) for one in outcomes if one.listed is not None]
    if not lists:
        raise DataError("no prompt has a judged list; evaluate lists with evaluation.greedy")
    if strange := sorted({docno for docno in known.values() if not _is_docno(docno)}):
        raise DataError(f"docno {strange[0]!r} is no single word that begins without ~; give others")

    def docno(name: str) -> str:
        made = known.get(name, safe_id(name))
        if found.names.setdefault(made, name) != name:
            raise DataError(f"docno {made!r} stands for {found.names[made]!r} and {name!r}; give each its own")
        return made

    held: Counter[str] = Counter()
    unnamed = 0
    for name, listed in lists:
        query = safe_id(name)
        found.queries[query] = name
        found.qrels[query], missing = _judged(listed, docno)
        unnamed += missing
        found.run[query] = _documents(listed, found.qrels[query], docno, places, held) or [EMPTY]
    found.notes = list(_notes(outcomes, found, held, unnamed, places))
    return found


def _documents(
    listed: Listed, judged: Mapping[str, float], docno: Callable[[str], str], places: Places, held: Counter[str]
) -> list[str]:
    """Docnos in order; a place without one of its own gets a placeholder, or goes."""
    documents: list[str] = []
    for place, (mark, one) in enumerate(zip(listed.marks, _named(listed, docno), strict=True), 1):
        # a document that is relevant must count exactly where the verdict says that it was hit
        if one is None or one in documents or (mark == "h") != (one in judged):
            held[_REASONS[mark]] += 1
            if places == "drop":
                continue
            one = f"{PLACEHOLDER}{_REASONS[mark]}-{place}"
        documents.append(one)
    return documents


def _named(listed: Listed, docno: Callable[[str], str]) -> list[str | None]:
    """Docno of the item at each place. A verifier of one's own may mark hits without naming them."""
    items = listed.items or (None,) * len(listed.marks)
    return [
        (f"{HIT}{place}" if mark == "h" else None) if item is None else docno(item)
        for place, (mark, item) in enumerate(zip(listed.marks, items, strict=True), 1)
    ]


def _judged(listed: Listed, docno: Callable[[str], str]) -> tuple[dict[str, float], int]:
    """Relevance by docno, and the number of relevant items whose names are not known."""
    if listed.relevant_items:
        named = [docno(item) for item in listed.relevant_items]
        values, rest = list(listed.ideal[: len(named)]), list(listed.ideal[len(named) :])
    else:  # written before names were kept: those of the hits are known
        hits = zip(listed.marks, _named(listed, docno), listed.scores or [1.0] * len(listed.marks), strict=True)
        found = {one: gain for mark, one, gain in hits if mark == "h" and one is not None}
        named, values = list(found), list(found.values())
        rest = list((Counter(listed.ideal) - Counter(values)).elements())
    known = dict(zip(named, values, strict=True))
    return known | {f"{PLACEHOLDER}relevant-{place}": value for place, value in enumerate(rest, 1)}, len(rest)


def _notes(
    outcomes: Sequence[Outcome], found: Export, held: Mapping[str, int], unnamed: int, places: Places
) -> Iterator[str]:
    lost = len(outcomes) - len(found.run)
    if lost:
        yield (
            f"{lost} of {len(outcomes)} prompts have no judged list (undecided, or nothing to find): they are in "
            "neither file and in no mean"
        )
    empty = sum(documents == [EMPTY] for documents in found.run.values())
    if empty:
        yield f"{empty} queries have an empty list: their one line is {EMPTY}, so that readers count them as 0"
    if held:
        told = ", ".join(f"{number} {reason}" for reason, number in sorted(held.items()))
        what = (
            "keep their rank under a placeholder (~…)"
            if places == "keep"
            else "were dropped, and what follows moved up"
        )
        yield f"places without a document of their own {what}: {told}"
    if unnamed:
        yield (
            f"{unnamed} relevant items have no name here (outside the catalog, or an evaluation of before names were "
            "kept) and are ~relevant-… in the qrels: our measures stay, but no other system can find them"
        )


def judge(
    rankings: Sequence[Ranking],
    qrels: Mapping[str, Mapping[str, float]],
    names: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
) -> tuple[list[Outcome], list[str]]:
    """Outcomes of somebody's lists by somebody's judgements, in the form of an evaluation of ours, and notes.

    Every query with a relevant document counts; one that the run lacks has an empty list. Documents without a
    judgement are misses.

    Args:
        rankings: the lists.
        qrels: relevance by query and docno.
        names: name of items by docno; others keep their docno.
        prompts: id of prompts by qid; others keep their qid.

    Raises:
        DataError: if no query is in both.
    """
    known, lists = names or {}, {one.query: one for one in rankings}
    asked = {query: judged for query, grades in qrels.items() if (judged := {d: g for d, g in grades.items() if g > 0})}
    if not set(asked) & set(lists):
        example = f"{next(iter(lists), '')!r} and {next(iter(qrels), '')!r}"
        raise DataError(
            f"run and qrels have no query with a relevant document in common ({example}); give those of one"
        )
    notes: list[str] = []
    for count, told in (
        (len(set(asked) - set(lists)), "queries of the qrels are not in the run; they count as 0"),
        (len(set(lists) - set(qrels)), "queries of the run have no judgements; they are left out"),
        (len(qrels) - len(asked), "queries have no relevant document; they are left out"),
    ):
        notes += [f"{count} {told}"] if count else []
    ids = prompts or {}
    return [Outcome(ids.get(q, q), "", 0, "", _listed(lists.get(q), own, known)) for q, own in asked.items()], notes


def _listed(ranking: Ranking | None, judged: Mapping[str, float], names: Mapping[str, str]) -> Listed:
    items = () if ranking is None else ranking.items
    reasons = (ranking.reasons if ranking is not None else ()) or ("",) * len(items)
    hits = [item is not None and item in judged for item in items]
    graded = set(judged.values()) != {1.0}
    marks = (
        "h" if hit else MARKS.get(reason, "o") if item is None else "m"
        for item, hit, reason in zip(items, hits, reasons, strict=True)
    )  # fmt: skip
    return Listed(
        marks="".join(marks),
        relevant=len(judged),
        items=tuple(None if item is None else names.get(item, item) for item in items),
        relevances=tuple(judged.values()) if graded else (),
        scores=tuple(judged[item] if hit and item is not None else 0.0 for item, hit in zip(items, hits, strict=True))
        if graded
        else (),
        relevant_items=tuple(names.get(docno, docno) for docno in judged),
    )


def _is_docno(text: str) -> bool:
    return text.split() == [text] and not text.startswith(PLACEHOLDER)
