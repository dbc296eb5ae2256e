"""Whether a question asks for a percentage, from the columns of its row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_COLUMNS = ("question", "problem", "query", "instruction", "input", "prompt", "messages")
_ASKS = re.compile(
    r"\b(?:what|which|find|calculate|compute|determine|give|state|express|how (?:much|many))\b[^.?!\n]{0,60}?"
    r"(?:\bpercent(?:age)?\b|\\?%)(?! (?:discount|off|of the original)\b)",
    re.IGNORECASE,
)
_LONGEST = 20_000


def asks_percent(columns: Mapping[str, Any], gold_key: str) -> bool:
    """Whether the question of a row asks for a percentage, so that ``50%`` is an answer whose gold one is 50.

    >>> asks_percent({"question": "What percentage of the eggs is brown?"}, "answer")
    True
    >>> asks_percent({"question": "A 20% discount saves $5. What was the price?"}, "answer")
    False
    """
    return any(_ASKS.search(text) for name in _COLUMNS if name != gold_key for text in _texts(columns.get(name)))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value[:_LONGEST]]
    if isinstance(value, (list, tuple)):
        parts = [turn.get("content", turn.get("text")) for turn in value if isinstance(turn, Mapping)]
        return [text for part in parts for text in _texts(part)]
    return []
