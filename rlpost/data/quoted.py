"""Text that somebody else wrote, inside text that a template wrote: its special tokens are text, and stay so.

A Lean message repeats what the model wrote. If that holds ``<|im_end|>``, the tokenizer would make the token of it, and
the model could end a turn of the environment's, or begin one of its own. What is quoted therefore goes through the
template with marks in place of special tokens, and is tokenized between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Characters of Unicode's private use area; those of a text itself are marked as well."""
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class Quotation:
    """Marks for the special tokens in quoted texts.

    Args:
        special: texts of the tokenizer's special tokens.
    """

    def __init__(self, special: Iterable[str]):
        known = sorted({one for one in special if one} | {_OPEN, _CLOSE}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known)))
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        r"""The text with a mark in place of each special token.

        >>> Quotation(["<s>"]).mark("a <s> b") == "a \ue0000\ue001 b"
        True
        """
        return self._pattern.sub(
            lambda found: f"{_OPEN}{self._numbers.setdefault(found[0], len(self._numbers))}{_CLOSE}", text
        )

    def unmarked(self, text: str) -> str:
        """A text with the marks replaced by what they stand for."""
        return "".join(piece for piece, _ in self._pieces(text))

    def ids(self, tokenizer: Any, text: str) -> list[int]:
        """Token ids of a rendered text: special tokens outside marks are tokens, those that marks stand for are not."""
        found: list[int] = []
        for piece, quoted in self._pieces(text):
            found += tokenizer(piece, add_special_tokens=False, split_special_tokens=quoted)["input_ids"]
        return found

    def _pieces(self, text: str) -> list[tuple[str, bool]]:
        """Pieces of a text in order, each with whether a mark stands for it."""
        texts = list(self._numbers)
        parts = _MARK.split(text)
        pieces = [(texts[int(part)], True) if place % 2 else (part, False) for place, part in enumerate(parts)]
        return [(piece, quoted) for piece, quoted in pieces if piece]
