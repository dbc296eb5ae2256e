"""The commands ``rlpost verify catalog`` and ``rlpost demonstrate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlpost.data.jsonl import parse_lines, read_jsonl, read_text
from rlpost.data.messages import read_messages
from rlpost.errors import DataError, UserError, first_line
from rlpost.paths import cache_folder
from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.demonstrations import DemonstrationSettings, Rate, Remapper, demonstrate
from rlpost_verifiers.catalog.embedding import DEFAULT, Embedder
from rlpost_verifiers.catalog.items import Catalog
from rlpost_verifiers.catalog.teacher import (
    Answers,
    Endpoint,
    by_id,
    list_questions,
    parse_ratings,
    rating_question,
    read_lists,
)
from rlpost_verifiers.catalog.verifier import CatalogVerifier


def verify_file(path: str, catalog: str | None, **settings: Any) -> int:
    """Print one verdict per list, in the file's order: each entry with its line, the catalog item and the reason.

    Args:
        path: JSON lines with ``text`` (or ``completion``), a label ``name`` or ``id``, and the columns with relevant
            and seen items where they are known; ``-`` reads standard input.
        catalog: path of the catalog; None: the films that ship.
        settings: further keyword arguments of `CatalogVerifier`.

    Returns:
        The exit status.

    Raises:
        UserError: for a line without a list, or an unknown setting; nothing is printed then.
    """
    try:
        verifier = _verifier(catalog, **settings)
    except TypeError as error:
        raise UserError(f"verify catalog cannot take {settings} ({error})") from None
    rows = [_row(place, value) for place, value in parse_lines(_text(path), path)]
    verdicts = verifier.verify_batch([VerifyItem(row, row["text"]) for row in rows])
    for row, verdict in zip(rows, verdicts, strict=True):
        places = [
            {
                "line": row["text"][item.start : item.stop].strip(),
                "item": name,
                "reason": item.reason,
                "score": item.score,
            }
            for item, name in zip(verdict.items, verdict.evidence["items"], strict=True)
        ]
        document = {"name": row["name"], "outcome": verdict.outcome, "reason": verdict.reason, "score": verdict.score}
        print(_json({**document, "places": places}), flush=True)
    return 0


def demonstrate_file(
    path: str,
    output: str,
    *,
    catalog: str | None = None,
    lists: str | None = None,
    url: str | None = None,
    teacher: str | None = None,
    rate: bool = False,
    embedder: str = DEFAULT,
    as_json: bool = False,
    **settings: Any,
) -> int:
    """Write demonstrations for the conversations of a file: the teacher's lists, mapped to a catalog.

    Args:
        path: JSON lines with ``id``, ``prompt``, and the columns with seen and relevant items.
        output: file to write; a server's answers are kept next to it, in ``OUTPUT.answers``.
        catalog: path of the catalog; None: the films that ship.
        lists: file with the teacher's lists; None: ask a server.
        url: base URL of the server, such as ``http://localhost:8000/v1``.
        teacher: name of the server's model.
        rate: ask the server to rate the best candidates as well.
        embedder: folder of a sentence-transformers model, or ``package:…``; see `embedding.Embedder`.
        as_json: print the figures as one JSON document.
        settings: fields of `DemonstrationSettings`.

    Returns:
        The exit status.

    Raises:
        UserError: for files, columns or settings that cannot be used.
        InfrastructureError: if the server answers no question.
    """
    if (lists is None) == (url is None) or (url is None) != (teacher is None) or (rate and url is None):
        raise UserError(
            "demonstrate: give --lists FILE, or --endpoint URL with --teacher MODEL (which --rate needs too)"
        )
    try:
        chosen = DemonstrationSettings(**settings)
    except TypeError as error:
        raise UserError(f"demonstrate cannot take {settings} ({error})") from None
    rows = by_id(read_jsonl(path))
    verifier = _verifier(catalog)
    answers = None
    if url is not None and teacher is not None:
        answers = Answers(Endpoint(url, teacher).asker(), f"{teacher} at {url}", Path(f"{output}.answers"))
    named = read_lists(lists) if lists is not None else {}
    if answers is not None:
        named = answers(list_questions(rows, chosen.size))
    remapper = Remapper(verifier, Embedder(embedder), chosen)
    found = demonstrate(rows, named, remapper, _rater(answers, rows) if rate and answers is not None else None)
    partial = Path(f"{output}.partial")
    partial.write_text("".join(_json(row) + "\n" for row in found.rows), encoding="utf-8")
    partial.rename(output)
    if as_json:
        print(json.dumps({"output": output, **found.figures}))
    else:
        print("\n".join(f"{name:<24}{value:>10.4g}" for name, value in found.figures.items()))
        print(output)
    return 0


def _verifier(catalog: str | None, **settings: Any) -> CatalogVerifier:
    """A verifier that takes rows without ground truth; defects of the catalog's rows are counted on stderr, and each
    is a line of a file in the cache folder.
    """
    verifier = CatalogVerifier(catalog, relevant_required=False, **settings)
    if verifier.catalog.defects:
        print(f"rlpost: {catalog}: {verifier.catalog.summary()}{_listed(verifier.catalog)}", file=sys.stderr)
    return verifier


def _listed(catalog: Catalog) -> str:
    """Where each defect is listed, for a message; nothing if the file cannot be written, which is told."""
    file = cache_folder() / "catalogs" / f"defects-{catalog.store.digest[:12]}.jsonl"
    try:
        catalog.write_defects(file)
    except OSError as error:
        return f" ({file} cannot be written: {first_line(error)})"
    return f"; row by row in {file}"


def _rater(answers: Answers, rows: Mapping[str, Mapping[str, Any]]) -> Rate:
    def rate(candidates: Mapping[str, Sequence[str]]) -> dict[str, dict[int, float]]:
        asked = {name: rating_question(rows[name], names) for name, names in candidates.items()}
        return {name: parse_ratings(text, len(candidates[name])) for name, text in answers(asked).items()}

    return rate


def _text(path: str) -> str:
    """The text of a file or of standard input. What is no UTF-8 becomes U+FFFD: one byte should not cost all lists."""
    if path == "-":
        buffer = getattr(sys.stdin, "buffer", None)
        return sys.stdin.read() if buffer is None else buffer.read().decode("utf-8-sig", "replace")
    if not Path(path).expanduser().is_file():
        raise DataError(f"{path}: no such file; give lists as JSON lines, or - for standard input")
    return read_text(path, errors="replace")


def _json(value: Any) -> str:
    """A value as one line of JSON; half of a surrogate pair, which no encoding can hold, is written as an escape."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def _row(place: str, value: Any) -> dict[str, Any]:
    row = value if isinstance(value, dict) else {}
    text = next((row[key] for key in ("text", "completion") if row.get(key) is not None), None)
    if isinstance(text, list) and text and all(isinstance(turn, dict) for turn in text):
        text = read_messages(text, place)[-1].content
    if not isinstance(text, str):
        raise DataError(f"{place}: no list; write {{'text': 'Title (Year)\\n…'}}")
    return {**row, "text": text, "name": str(row.get("name") or row.get("id") or place)}
