"""JSON lines, and JSON arrays, as rows. Whatever is wrong with a file is one line that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

from rlpost.errors import DataError, first_line

_KINDS = (
    (b"\x1f\x8b", "gzip-compressed; unpack it"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"BZh", "bzip2-compressed; unpack it"),
    (b"\xfd7zXZ", "xz-compressed; unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it"),
    (b"PAR1", "a Parquet file; set data.source to parquet"),
    (b"ARROW1", "an Arrow file; give the folder of the data set, with data.source hf_disk"),
    (b"\xff\xfe", "UTF-16 text; convert it to UTF-8"),
    (b"\xfe\xff", "UTF-16 text; convert it to UTF-8"),
)
"""First bytes of files that are given by mistake."""


def read_jsonl(path: str) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, or of a file that holds one JSON array of them; blank lines are skipped.

    Raises:
        DataError: naming the file, and the line that is not a JSON object.
    """
    rows: list[dict[str, Any]] = []
    for place, row in parse_lines(read_text(path), path):
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected a JSON object, got {type(row).__name__}")
        rows.append(cast("dict[str, Any]", row))
    return rows


def read_text(path: str, errors: Literal["strict", "replace"] = "strict") -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: path of the file.
        errors: bytes that are no UTF-8 are an error (``strict``), or become U+FFFD (``replace``).

    Raises:
        DataError: if the file is missing, unreadable, of another kind or in another encoding.
    """
    try:
        data = existing_file(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from None
    for magic, kind in _KINDS:
        if data.startswith(magic):
            raise DataError(f"{path}: {kind}")
    try:
        text = data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
    if "\0" in text[:100]:
        raise DataError(f"{path}: holds zero bytes, as UTF-16 text without its mark does; convert it to UTF-8")
    return text


def parse_lines(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Values of JSON lines, each with its place (``path:line``) for messages; blank lines are skipped. A text that is
    one JSON array of objects gives its items (``path, item 0``).

    Raises:
        DataError: naming the line that is not JSON, or gives a key twice.
    """
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError):  # lines that are lists, or a fault, which has a line
            whole = None
        items = cast("list[Any]", whole) if isinstance(whole, list) else [None]
        if not items or isinstance(items[0], dict):
            yield from ((f"{path}, item {number}", item) for number, item in enumerate(items))
            return
    # str.splitlines would also cut at U+2028 and others, which JSON allows inside strings
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            yield place, json.loads(line, object_pairs_hook=_distinct)
        except json.JSONDecodeError as error:
            said = "write one row per line" if _is_document(text) else "mend or remove the line"
            raise DataError(f"{place}: not valid JSON ({error.msg}); {said}") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a key given twice, too deep
            raise DataError(f"{place}: cannot be read ({first_line(error)}); mend or remove the line") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found


def _is_document(text: str) -> bool:
    """Whether a text is one JSON value over several lines."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def existing_file(path: str) -> Path:
    """The file at ``path``.

    Raises:
        DataError: if there is none, naming it.
    """
    try:
        file = Path(path).expanduser()
        if file.is_file():
            return file
        folder = file.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, an unknown user's home, a zero byte
        raise DataError(f"{path!r:.200}: no path of a file ({first_line(error)})") from None
    raise DataError(f"{path}: {'a folder' if folder else 'no such file'}; give the path of a data file")
