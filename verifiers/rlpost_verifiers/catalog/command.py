"""What ``rlpost verify catalog`` does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rlpost.data.prompts import parse_lines
from rlpost.errors import DataError, UserError
from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.verifier import CatalogVerifier


def verify_file(path: str, catalog: str | None, **settings: Any) -> int:
    """Print one verdict per list, in the file's order: each place with its title, the item it is, and the reason.

    Args:
        path: JSON lines with ``text`` (or ``completion``), a label ``name`` or ``id``, and the columns that say what is
            relevant and what was seen, where they are known; ``-`` reads standard input.
        catalog: file of the catalog; None: the films that ship.
        settings: of `CatalogVerifier`.

    Returns:
        The exit status.

    Raises:
        UserError: for a line that is no list, or a setting that is none; nothing is printed then.
    """
    try:
        verifier = CatalogVerifier(catalog, relevant_required=False, **settings)
    except TypeError as error:
        raise UserError(f"verify catalog cannot take {settings} ({error})") from None
    for defect in verifier.catalog.defects:
        print(f"rlpost: {catalog}, row {defect.row}: {defect.reason} {defect.value}", file=sys.stderr)
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
        print(json.dumps({**document, "places": places}, ensure_ascii=False), flush=True)
    return 0


def _text(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path}: no such file; give lists as JSON lines, or - for standard input")
    return file.read_text(encoding="utf-8")


def _row(place: str, value: Any) -> dict[str, Any]:
    text = (value.get("text") or value.get("completion")) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{place}: no list; write {{'text': 'Title (Year)\\n…'}}")
    return {**value, "text": text, "name": str(value.get("name") or value.get("id") or place)}
