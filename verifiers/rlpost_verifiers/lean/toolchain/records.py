"""Parses answers in the REPL's JSON, which the Kimina server passes on, into messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rlpost_verifiers.lean.messages import LeanMessage, LeanOutput

# The REPL shortens what Lean's own command line spells out.
_SEVERITIES = {"info": "information", "information": "information", "warning": "warning", "error": "error"}


class RecordError(ValueError):
    """The record does not have the form of a REPL answer; the message quotes it."""


def read_record(record: Mapping[str, Any]) -> LeanOutput:
    """The messages of one answer. Each open ``sorry`` becomes a message of kind ``hasSorry``, as on the command line.

    A message of unknown shape is refused rather than dropped: it might be an error.

    Raises:
        RecordError: for anything but lists of messages and sorries.

    >>> read_record({"env": 1, "sorries": [{"pos": {"line": 1, "column": 20}, "goal": "⊢ True"}]}).messages[0].kind
    'hasSorry'
    """
    messages = [_read_message(entry) for entry in _list(record, "messages")]
    for entry in _list(record, "sorries"):
        line, column = _position(entry) or (0, 0)
        messages.append(LeanMessage("warning", "declaration uses `sorry`", line, column, "hasSorry"))
    return LeanOutput(tuple(messages), ())


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordError(f"{key!r} is {str(value)[:100]!r}, not a list")
    return value


def _read_message(entry: object) -> LeanMessage:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    severity = _SEVERITIES.get(str(fields.get("severity")))
    text, place = fields.get("data"), _position(entry)
    if severity is None and fields.get("severity") == "trace":
        severity = "information"
    if severity is None or place is None or not isinstance(text, str):
        raise RecordError(f"{str(entry)[:200]!r} is no message")
    return LeanMessage(severity, text, *place)


def _position(entry: object) -> tuple[int, int] | None:
    match entry:
        case {"pos": {"line": int(line), "column": int(column)}}:
            return line, column
        case _:
            return None
