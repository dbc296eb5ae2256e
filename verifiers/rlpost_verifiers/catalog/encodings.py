"""Which encoding some bytes are in: UTF-8, a Western one, or one that cannot be told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

_ODD_SHARE = 0.2
"""Largest share of a Western text's accents that may stand where no writer puts them."""
_ODDLY_PLACED = re.compile(r"[A-Za-zÀ-ÿ][\x80-\x9f¡-©«-´¶-¹»-¿×÷][A-Za-zÀ-ÿ]|[a-z][À-ÖØ-ÞŠŽŸ]|[À-ÿ]{3}")
_IN_ROWS = re.compile(r"[^\x00-\x7f]{2,}")
_ROW_SHARE = 0.5
"""Largest share of a Western text's accents that may stand side by side."""
_DAMAGED = 0.02
"""Largest share of a file's lines that may be in no encoding at all."""


def wide(head: bytes) -> str | None:
    """UTF-16 without its mark: every second byte of plain text is zero."""
    zeros = head[0::2].count(0), head[1::2].count(0)
    if max(zeros) < len(head) // 5:
        return None
    return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"


def damaged(wrong: list[bytes], every: int) -> bool:
    """Whether so few lines cannot be read that they are damaged, and the others are plain text."""
    alone = len(wrong) == 1 and every > 2 and sum(byte > 127 for byte in wrong[0]) <= 2
    return alone or len(wrong) <= _DAMAGED * every


def counted(opened: BinaryIO) -> tuple[int, list[bytes], int]:
    """How many lines with characters outside ASCII are UTF-8, those that are not (at most 100,000), and all lines."""
    right, wrong, every = 0, list[bytes](), 0
    for line in opened:
        every += 1
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            right += 1
        except UnicodeDecodeError:
            if len(wrong) < 100_000:
                wrong.append(line)
    return right, wrong, every


def western(line: bytes) -> str:
    """Bytes as Windows-1252, or as Latin-1 where they hold what Windows-1252 leaves open."""
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def is_western(text: str) -> bool:
    """Whether the characters outside ASCII stand as accents and quotation marks of Western languages do: one by one,
    and where a writer puts them. Text in other encodings, read as Windows-1252, has them in rows.
    """
    accents = sum(c > "\x7f" for c in text)
    in_rows = sum(len(row) for row in _IN_ROWS.findall(text))
    return len(_ODDLY_PLACED.findall(text)) <= _ODD_SHARE * accents and in_rows <= _ROW_SHARE * accents


def decodes(lines: Iterable[bytes], encoding: str) -> bool:
    """Whether all lines can be read in an encoding."""
    try:
        for line in lines:
            line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def first_byte(line: bytes) -> str:
    """The first byte outside ASCII, for a message."""
    return f"0x{next(byte for byte in line if byte > 127):02x}"


def around(line: bytes) -> str:
    """The text around that byte, for a message."""
    place = next(place for place, byte in enumerate(line) if byte > 127)
    return western(line[max(place - 15, 0) : place + 15]).strip()
