"""Lean text as words for lexical retrieval."""

from __future__ import annotations

import re
from functools import lru_cache

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
    return [word for piece in _PIECE.findall(text) if piece not in _COMMON for word in _words_of(piece)]


@lru_cache(maxsize=1 << 20)
def _words_of(piece: str) -> tuple[str, ...]:
    names = _SPLIT.split(piece) if len(piece) > 1 else []
    parts = [part.lower() for name in names for part in _CAMEL.findall(name)]
    whole = () if parts == [piece] else (piece,)
    return (*whole, *(part for part in parts if part not in _COMMON))
