"""Lean text as words for lexical retrieval."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[^\W\d][\w'!?]*(?:\.[^\W\d][\w'!?]*)*|\d+|[^\w\s]")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^A-Za-z\d]+")
_SPLIT = re.compile(r"[._]")
# What nearly every declaration has, and what only separates.
_COMMON = frozenset(
    "theorem lemma def abbrev instance structure class inductive protected private noncomputable by fun type sort prop "  # noqa: SIM905
    "simp ext at in of where with ( ) [ ] { } , : ; . = @ ⟨ ⟩ ⦃ ⦄ ⊢ « » `".split()
)


def lean_words(text: str) -> list[str]:
    """The words of a piece of Lean: each name whole and in its parts (at dots, underscores and capitals), and symbols.

    >>> lean_words("theorem Nat.sub_le_ofPos (h : a ≤ b)")
    ['Nat.sub_le_ofPos', 'nat', 'sub', 'le', 'pos', 'h', 'a', '≤', 'b']
    """
    words: list[str] = []
    for piece in _PIECE.findall(text):
        if piece in _COMMON:
            continue
        parts = (
            [part.lower() for name in _SPLIT.split(piece) for part in _CAMEL.findall(name)] if len(piece) > 1 else []
        )
        if parts != [piece]:
            words.append(piece)
        words += [part for part in parts if part not in _COMMON]
    return words
