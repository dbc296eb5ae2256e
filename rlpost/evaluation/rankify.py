"""Rankify's JSON of queries with ranked contexts (Abdallah et al. 2025, "Rankify"; the form of DPR's results)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.errors import DataError
from rlpost.evaluation.exchange import Export
from rlpost.evaluation.ranked import Ranking
from rlpost.evaluation.trec import PLACEHOLDER

_LISTS = ("reranked_ctxs", "ctxs", "contexts")
"""Keys of the lists, the one that counts first: Rankify writes its own order next to the one it was given."""


def documents(export: Export, questions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Lists as `Dataset.load_dataset` of Rankify reads them, without places that hold no document.

    Args:
        export: lists and judgements.
        questions: text of each prompt by its id; others have their id for a question.
    """
    found: list[dict[str, Any]] = []
    for query, ranked in export.run.items():
        asked, judged = export.queries[query], export.qrels[query]
        kept = [docno for docno in ranked if not docno.startswith(PLACEHOLDER)]
        contexts = [
            {"id": docno, "title": export.names[docno], "text": export.names[docno], "score": float(len(kept) - place),
             "has_answer": docno in judged}
            for place, docno in enumerate(kept)
        ]  # fmt: skip
        answers = [export.names[docno] for docno in judged if docno in export.names]
        # Rankify puts a question mark behind what has none
        question = questions.get(asked, asked).rstrip("?") + "?"
        found.append({"question": question, "answers": answers, "query_id": query, "ctxs": contexts})
    return found


def read(rows: Sequence[Any], where: str, questions: Mapping[str, str] | None = None) -> list[Ranking]:
    """The lists of a Rankify file.

    Rankify does not write ``query_id`` when it saves. A query is then the prompt with this question, or the question
    itself without its question mark.

    Args:
        rows: the entries of the file.
        where: its name in messages.
        questions: text of each prompt by its id.

    Raises:
        DataError: for an entry without a question or a list, a context without id, or one that is there twice.
    """
    asked = {text.rstrip("?"): name for name, text in (questions or {}).items()}
    found: dict[str, Ranking] = {}
    for number, row in enumerate(rows):
        place = f"{where}, item {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{place}: no mapping with question and ctxs; give a file that Rankify reads or writes")
        contexts = next((row[key] for key in _LISTS if row.get(key) is not None), None)
        query = row.get("query_id", row.get("id"))
        if query in (None, "None"):
            text = str(row.get("question", "")).rstrip("?")
            query = asked.get(text, text)
        if not query or not isinstance(contexts, Sequence):
            raise DataError(f"{place}: no query_id or question, or no list ctxs (there are {', '.join(map(str, row))})")
        items = [one.get("id") if isinstance(one, Mapping) else None for one in contexts]
        if None in items or len(set(map(str, items))) < len(items):
            raise DataError(f"{place}: a context without id, or one that is there twice")
        if str(query) in found:
            raise DataError(f"{place}: query {query!r} is there twice; give each a query_id of its own")
        found[str(query)] = Ranking(str(query), tuple(map(str, items)))
    if not found:
        raise DataError(f"{where}: no entries; give a file that Rankify reads or writes")
    return list(found.values())
