"""Rows of catalog files: JSON lines, a JSON array, CSV and its relatives, Parquet; in UTF-8 or another encoding.

A file is read in one pass, row by row. What cannot be read is a defect of its row; a file of which nothing can be read
right is refused with one line.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlpost.data.jsonl import existing_file
from rlpost.errors import DataError, first_line
from rlpost.plugins.registry import resolve
from rlpost_verifiers.catalog.encodings import (
    around,
    counted,
    damaged,
    decodes,
    first_byte,
    is_western,
    western,
    wide,
)
from rlpost_verifiers.catalog.layouts import (
    fitted,
    is_separator,
    names_of_columns,
    object_of,
    rows_within,
    separator_of,
    split_colons,
)

Report = Callable[[int, str, Any], None]
"""Takes row number, reason and value of a defect."""
Row = tuple[int, dict[str, Any], str | None]
"""Number and content of a row, and its JSON text where the file holds it."""

_REFUSED = (
    (b"PK\x03\x04", "a zip archive (or an Excel file); unpack it, or export it as CSV"),
    (b"BZh", "bzip2-compressed; unpack it"),
    (b"\xfd7zXZ", "xz-compressed; unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it"),
    (b"SQLite format 3", "an SQLite file; export the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file; export it as CSV"),
    (b"%PDF", "a PDF; give a table"),
)
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
_HEAD = 4096
_ESCAPED = re.compile(r'\\"(?!\s*(?:[,;\t|]|$))')
"""A quote behind a backslash that ends no cell."""
_FIRST_ROWS = 100
"""Rows by which it is told whether the first line names columns."""
_DELIMITERS = ",;\t|"
_DELIMITED = (".csv", ".tsv", ".dat", ".txt")
_JSON = (".jsonl", ".json", ".ndjson")
_DECODER = json.JSONDecoder(strict=False)
csv.field_size_limit(2**24)


def read_rows(path: str, report: Report) -> Iterator[Row]:
    """The rows of a catalog file, in order; numbers count the rows from 0, those that cannot be read included.

    Args:
        path: path of the file: Parquet, JSON (lines or an array) or delimited text; gzip is unpacked.
        report: takes the defects of rows.

    Raises:
        DataError: if there is no such file, it is of another kind, or its encoding cannot be told.
    """
    file = existing_file(path)
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if not head.strip():
        raise DataError(f"{path}: an empty file; give the path of a catalog")
    for magic, kind in _REFUSED:
        if head.startswith(magic):
            raise DataError(f"{path}: {kind}")
    if head.startswith(b"PAR1"):
        yield from ((number, row, None) for number, row in enumerate(resolve("sources", "parquet")(str(file))))
        return
    packed = head.startswith(b"\x1f\x8b")
    name = file.with_suffix("") if packed else file
    try:
        lines = _Lines(path, gzip.open if packed else open, file, report)
        first = next((line for line in lines if line.strip()), "").lstrip()
        delimited = name.suffix in _DELIMITED or (first[:1] not in ("{", "[") and name.suffix not in _JSON)
        if delimited:
            yield from _delimited(path, lines, first, "\t" if name.suffix == ".tsv" else None, report)
        elif first.startswith("["):
            yield from _array(path, "".join(lines), report)
        else:
            yield from _objects(lines, first, report)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from None


class _Lines:
    """The lines of a text file, which can be read several times; each reading decodes in its own way."""

    def __init__(self, path: str, opener: Callable[..., Any], file: Path, report: Report):
        self._path, self._open, self._file, self._report = path, opener, file, report
        self.encoding = self._encoding()

    def __iter__(self) -> Iterator[str]:
        return self._read(None)

    def last_time(self, before: int = 0) -> Iterator[str]:
        """The lines once more, reporting those in another encoding; ``before``: lines before the first row."""
        return self._read(before)

    def _read(self, before: int | None) -> Iterator[str]:
        with self._open(self._file, "rb") as opened:
            if self.encoding is not None:
                yield from io.TextIOWrapper(opened, self.encoding, "replace")
                return
            for number, line in enumerate(opened):  # UTF-8 with some lines in Windows-1252
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError:
                    text = western(line)
                    if not is_western(text):
                        text = line.decode("utf-8", "replace")
                    if before is not None:
                        self._report(max(number - before, 0), "line_not_utf8", text.strip())
                    yield text

    def _encoding(self) -> str | None:
        """The file's encoding; None: UTF-8 with some lines in another one."""
        with self._open(self._file, "rb") as opened:
            head = opened.read(_HEAD)
            for mark, encoding in _MARKS:
                if head.startswith(mark):
                    return encoding
            if encoding := wide(head):
                return encoding
            opened.seek(0)
            right, wrong, every = counted(opened)
        if not wrong:
            return "utf-8"
        if right >= len(wrong):
            return None
        if not is_western("".join(map(western, wrong))):
            if damaged(wrong, every):
                return None
            raise DataError(
                f"{self._path}: neither UTF-8 nor a Western encoding (byte {first_byte(wrong[0])}, around "
                f"{around(wrong[0])!r}); convert it: iconv -f ENCODING -t UTF-8"
            )
        return "cp1252" if decodes(wrong, "cp1252") else "latin-1"


def _objects(lines: _Lines, first: str, report: Report) -> Iterator[Row]:
    """A row per line, or the rows that stand within one object."""
    if object_of(first) is None and isinstance(whole := object_of("".join(lines)), dict):  # indented
        yield from ((number, row, None) for number, row in enumerate(rows_within(whole) or [whole]))
        return
    rows = _json_lines(lines.last_time(), report)
    head = list(islice(rows, 2))
    if len(head) == 1 and (within := rows_within(head[0][1])):
        yield from ((number, row, None) for number, row in enumerate(within))
        return
    yield from chain(head, rows)


def _json_lines(lines: Iterable[str], report: Report) -> Iterator[Row]:
    decode = _DECODER.decode
    number = 0
    for line in lines:
        text: str | None = line
        try:
            row = decode(line)
        except (ValueError, RecursionError):
            if not line.strip():
                continue
            row, text = _literal(line), None
        if isinstance(row, dict):
            yield number, row, text
        else:
            report(number, "unreadable", line.strip())
        number += 1


def _literal(line: str) -> Any:
    """A line as Python prints a dictionary (Amazon's metadata of 2014); None for another one."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _array(path: str, text: str, report: Report) -> Iterator[Row]:
    try:
        rows = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({first_line(error)}); write one object per line") from None
    for number, row in enumerate(rows):
        if isinstance(row, dict):
            yield number, row, None
        else:
            report(number, "unreadable", row)


def _delimited(path: str, lines: _Lines, first: str, delimiter: str | None, report: Report) -> Iterator[Row]:
    """Rows of CSV and its relatives; the first line names the columns, unless its rows begin with numbers."""
    delimiter = separator_of(first) or delimiter
    colons = first.count("::") > 1
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=first.count) if any(map(first.count, _DELIMITERS)) else ","
    parse = split_colons if colons else _quoted
    delimiter = "::" if colons else delimiter
    if not colons and any(_ESCAPED.search(line) for line in lines):
        parse = _escaped
    elif (
        not colons
        and any(line.count('"') % 2 for line in lines)
        and _good(_by_line, lines, delimiter) > _good(_quoted, lines, delimiter)
    ):
        parse = _by_line
    rows = (cells for cells in parse(lines.last_time(before=1), delimiter) if cells and not is_separator(cells))
    head = list(islice(rows, _FIRST_ROWS))
    names = names_of_columns(head)
    without_names = names is not None
    if names is None:
        names = [name.strip().lstrip("\ufeff") for name in (head[0] if head else ())]
        head = head[1:]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(
            f"{path}: column {twice[0]!r} is there twice; rename one, or write a first line of names if there is none"
        )
    for number, cells in enumerate(chain(head, rows)):
        cells = fitted(cells, names, delimiter) if without_names else cells
        if len(cells) != len(names):
            report(number, "unreadable", delimiter.join(cells))
        elif "" in cells or "\\N" in cells:
            yield number, {n: c if c not in ("", "\\N") else None for n, c in zip(names, cells, strict=True)}, None
        else:
            yield number, dict(zip(names, cells, strict=True)), None


def _quoted(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Cells in which quotes may hold delimiters and line breaks."""
    return csv.reader(lines, delimiter=delimiter)


def _escaped(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Cells in which a quote is written behind a backslash."""
    return csv.reader(lines, delimiter=delimiter, escapechar="\\")


def _by_line(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """A row per line: quotes that open and never close are part of the text, as in IMDb's files."""
    for line in lines:
        if line.count('"') % 2:
            yield line.rstrip("\r\n").split(delimiter)
        else:
            yield next(csv.reader([line], delimiter=delimiter), [])


def _good(parse: Callable[[Iterable[str], str], Iterator[list[str]]], lines: _Lines, delimiter: str) -> int:
    """Number of rows with as many cells as the first one; 0 if a quote that never closes swallows too much."""
    rows = parse(lines, delimiter)
    try:
        names = len(next(rows, []))
        return sum(len(cells) == names for cells in rows)
    except csv.Error:
        return 0
