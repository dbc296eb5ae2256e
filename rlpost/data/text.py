"""What becomes text: text, and numbers as people write them. Everything else is refused, never written by ``str()``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np

from rlpost.errors import DataError

_LONGEST = 40
"""Characters of a number without an exponent: longer ones are written with one."""


def as_text(value: object, place: str) -> str:
    """A value of a data column as text.

    Text stays as it is. Numbers (Python's, numpy's and decimal ones) are written without an exponent and with no more
    digits than tell them apart: 3 is ``3``, 5.0 is ``5.0``, 1e-05 is ``0.00001``. Truth values are refused, because
    JSON, Python and people write them differently, and so are nulls, NaN, infinities, bytes, dates, lists and mappings.

    Args:
        value: the column's value.
        place: where it stands, for the message, such as ``data.train, row 3: column 'question'``.

    Raises:
        DataError: for a value that is no text.

    >>> as_text(1e-05, "here"), as_text(5.0, "here"), as_text(np.float32(0.1), "here"), as_text(Decimal("3.50"), "here")
    ('0.00001', '5.0', '0.1', '3.50')
    """
    if isinstance(value, str):
        return checked(str(value), place)
    if isinstance(value, (bool, np.bool_)):
        raise DataError(f"{place} holds {bool(value)}, which people write in several ways; write it as text")
    if isinstance(value, (int, float, Decimal, np.integer, np.floating)) and _is_finite(value):
        return _number(value, place)
    raise DataError(f"{place} holds {shown(value)}, expected text or a number; fill it in or drop the row")


def checked(text: str, place: str) -> str:
    r"""The text, if it can be written as UTF-8.

    Raises:
        DataError: for half of a surrogate pair (``\ud83d`` without its second half), which no tokenizer takes.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place} holds {text[error.start]!a} at character {error.start}, half of a character (a lone surrogate); "
            "mend the text or drop the row"
        ) from None
    return text


def shown(value: object) -> str:
    """A value in a message: its start, on one line, without characters that cannot be printed."""
    try:
        said = repr(value)
    except Exception as error:  # an object of a data library that cannot show itself; its type says enough
        said = f"a {type(value).__name__} ({type(error).__name__})"
    said = " ".join(said.split()).encode("utf-8", "backslashreplace").decode()
    return said if len(said) <= 80 else f"{said[:77]}..."


def named(columns: Iterable[object]) -> str:
    """The names of a row's columns in a message."""
    names = [str(name) if str(name).isprintable() and len(str(name)) <= 40 else shown(name) for name in columns]
    return ", ".join(names if len(names) <= 20 else [*names[:20], f"and {len(names) - 20} more"])


def is_missing(value: object) -> bool:
    """Whether a value stands for "nothing here": None, and the NaN that pandas writes for it."""
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _is_finite(value: Any) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else isinstance(value, int) or bool(np.isfinite(value))


def _number(value: Any, place: str) -> str:
    if isinstance(value, Decimal):
        text, short = f"{value:f}", str(value)
    elif isinstance(value, (float, np.floating)):
        text, short = np.format_float_positional(value, trim="0"), str(value)
    else:
        try:
            return str(int(value))
        except ValueError:  # Python writes no more than 4,300 digits
            raise DataError(f"{place} holds a number of more than 4,300 digits; write it as text") from None
    return text if len(text) <= _LONGEST else short
