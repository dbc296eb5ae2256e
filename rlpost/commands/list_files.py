"""Files of ranked lists as commands are given them: evaluations of ours, TREC's runs and qrels, Rankify's JSON, and
tables of names, groups and users.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlpost.data.csv_files import read_csv
from rlpost.data.jsonl import parse_lines, read_jsonl, read_text
from rlpost.data.tables import read_parquet
from rlpost.data.text import as_text, is_missing
from rlpost.errors import DataError, UserError, first_line
from rlpost.evaluation import outcomes, rankify, trec
from rlpost.evaluation.outcomes import Outcome
from rlpost.evaluation.ranked import Ranking, of_outcomes
from rlpost.observability.runfolder import replace_text

_LAST = "after.jsonl"


def evaluation(path: str) -> list[Outcome]:
    """Outcomes of an evaluation: a file that ``rlpost evaluate --output`` or a run wrote, or a run folder, whose last
    evaluation it is.

    Raises:
        DataError: if there is none.
    """
    given = Path(path)
    if not given.is_dir():
        found = outcomes.read(given)
        if not found:
            raise DataError(f"{path}: no outcomes; write some with rlpost evaluate --output")
        return found
    folder = given / "evaluations" if (given / "evaluations").is_dir() else given
    if (folder / _LAST).exists():
        return evaluation(str(folder / _LAST))
    there = sorted(str(file) for file in folder.glob("*.jsonl"))
    raise DataError(f"{path}: no {_LAST}; give the file of an evaluation ({', '.join(there) or 'there is none'})")


@dataclass(frozen=True, slots=True)
class Names:
    """What the ids of a run stand for; ids that are not in it stand for themselves.

    Attributes:
        items: name of items by docno.
        queries: id of prompts by qid.

    >>> Names({"tt0078748": "Alien (1979)"}, {}).items["tt0078748"]
    'Alien (1979)'
    """

    items: Mapping[str, str]
    queries: Mapping[str, str]

    def apply(self, ranking: Ranking) -> Ranking:
        """The list under our names."""
        items = tuple(None if item is None else self.items.get(item, item) for item in ranking.items)
        return replace(ranking, query=self.queries.get(ranking.query, ranking.query), items=items)


def names(path: str | None) -> Names:
    """Names from a table with docno and name, and perhaps qid and id, such as ``rlpost trec export`` writes.

    Raises:
        DataError: as `table`.
    """
    return Names(mapping(path, "docno", "name"), mapping(path, "qid", "id", required=False))


def rankings(path: str, known: Names) -> tuple[list[Ranking], list[str]]:
    """The lists of a file or run folder, and notes about them.

    Args:
        path: an evaluation of ours, a TREC run (also ``.gz``), or Rankify's JSON.
        known: names of items and queries of a run.

    Raises:
        DataError: for a file that is none of these.
    """
    if Path(path).is_dir():
        return _judged(evaluation(path), path)
    text = plain_text(path)
    if text.lstrip()[:1] == "{" and not _is_rankify_line(text):
        return _judged(evaluation(path), path)
    found, notes = foreign(path, text)
    return [known.apply(one) for one in found], notes


def foreign(path: str, text: str, questions: Mapping[str, str] | None = None) -> tuple[list[Ranking], list[str]]:
    """The lists of a TREC run or of Rankify's JSON, under their own ids, and notes about them.

    Raises:
        DataError: for a file that is neither.
    """
    if text.lstrip()[:1] in ("[", "{"):
        return rankify.read([row for _, row in parse_lines(text, path)], path, questions), []
    return trec.read_run(text.split("\n"), path)


def _judged(found: Sequence[Outcome], path: str) -> tuple[list[Ranking], list[str]]:
    lists = of_outcomes(found)
    if not lists:
        raise DataError(f"{path}: no prompt has a judged list; evaluate lists with evaluation.greedy")
    lost = len(found) - len(lists)
    return lists, [f"{path}: {lost} of {len(found)} prompts have no judged list; they are left out"] if lost else []


def _is_rankify_line(text: str) -> bool:
    try:
        row = json.loads(text.lstrip().split("\n", 1)[0])
    except ValueError:
        return False
    return isinstance(row, dict) and "question" in row


def plain_text(path: str) -> str:
    """Text of a UTF-8 file, unpacked if its name ends in ``.gz``.

    Raises:
        DataError: if it cannot be read.
    """
    if not path.endswith(".gz"):
        return read_text(path).replace("\r\n", "\n")
    try:
        return gzip.decompress(Path(path).read_bytes()).decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from None


def table(path: str, columns: Sequence[str], required: bool = True) -> list[list[str | None]]:
    """Values of some columns of a JSONL, CSV, TSV or Parquet file as text, row by row; None where one is missing.

    Raises:
        DataError: for a file that cannot be read, or that lacks a required column in every row.
    """
    suffix = Path(path).suffix.lower()
    rows: list[dict[str, Any]] = (
        read_csv(path)
        if suffix in (".csv", ".tsv")
        else read_parquet(path)
        if suffix == ".parquet"
        else read_jsonl(path)
    )
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        if required and name not in known:
            raise DataError(f"{path}: no column {name!r} (there are {', '.join(known) or 'no rows'})")
    return [
        [
            None if is_missing(row.get(name)) else as_text(row[name], f"{path}, row {number}: column {name!r}")
            for name in columns
        ]
        for number, row in enumerate(rows)
    ]


def mapping(path: str | None, key: str, value: str, required: bool = True) -> dict[str, str]:
    """A table of two columns as a mapping; rows that lack one of them are passed over. None: empty.

    Raises:
        DataError: as `table`, or for a key with two values; a missing column only if it is required.
    """
    found: dict[str, str] = {}
    for name, one in table(path, (key, value), required) if path is not None else ():
        if name is not None and one is not None and found.setdefault(name, one) != one:
            raise DataError(f"{path}: {key} {name!r} has two values in {value!r}, {found[name]!r} and {one!r}")
    return found


def groups(path: str, item: str, group: str) -> dict[str, list[str]]:
    """Groups of each item; an item may have several rows.

    Raises:
        DataError: as `table`.
    """
    found: dict[str, list[str]] = {}
    for name, one in table(path, (item, group)):
        if name is not None and one is not None:
            found.setdefault(name, []).append(one)
    return found


def write_new(files: Mapping[str, Iterable[str]], force: bool) -> None:
    """Write text files whole; one that is there with other text is not replaced, and then none is written.

    Raises:
        UserError: for such a file, or a path that cannot be written.
    """
    texts = {path: "".join(f"{line}\n" for line in lines) for path, lines in files.items()}
    try:
        for path, text in texts.items():
            if not force and os.path.exists(path) and Path(path).read_bytes() != text.encode():
                raise UserError(f"{path} is there with other text; give another name, or --force to replace it")
        for path, text in texts.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            replace_text(Path(path), text)
    except OSError as error:
        raise UserError(f"{first_line(error)}; give a path that can be written") from None
