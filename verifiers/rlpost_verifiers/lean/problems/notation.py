"""The closed set of tokens that generated statements and proofs are written in, and their fixed spacing.

``render(tokenize(text)) == text`` holds for every generated text: a word-level tokenizer over `TOKENS` loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlpost.errors import UserError

ATOMS = ("p", "q", "r", "s")
MAX_HYPOTHESES = 24
"""Hypotheses are numbered h1, h2, … in order of appearance; a proof that needs more is not used."""

STATEMENT_TOKENS = ("∀", *ATOMS, ":", "Prop", ",", "(", ")", "→", "∧", "∨", "↔", "¬", "False")
PROOF_TOKENS = (
    *("fun", *ATOMS, "=>", "(", ")", "⟨", ",", "⟩", ".1", ".2", ".elim", "Or.inl", "Or.inr"),
    *(f"h{number}" for number in range(1, MAX_HYPOTHESES + 1)),
)
TACTIC_TOKENS = (
    "by",
    "intro",
    ";",
    "exact",
    "apply",
    "constructor",
    "left",
    "right",
    "refine",
    "?_",
    "Or.elim",
    "False",
)
TOKENS = tuple(dict.fromkeys((*STATEMENT_TOKENS, *PROOF_TOKENS, *TACTIC_TOKENS)))

_TOKEN = re.compile("|".join(re.escape(token) + r"(?!\w)" * token[-1].isalnum() for token in TOKENS))
_TIGHT_AFTER = frozenset("(⟨¬")
_TIGHT_BEFORE = frozenset({")", "⟩", ",", ";", ".1", ".2", ".elim"})


def render(tokens: Sequence[str]) -> str:
    """The text of a token sequence: one space between tokens, except inside brackets and before suffixes.

    >>> render(["fun", "p", "h1", "=>", "h1", ".elim", "(", "h1", ")"])
    'fun p h1 => h1.elim (h1)'
    """
    words: list[str] = []
    for index, token in enumerate(tokens):
        if index and token not in _TIGHT_BEFORE and tokens[index - 1] not in _TIGHT_AFTER:
            words.append(" ")
        words.append(token)
    return "".join(words)


def tokenize(text: str) -> list[str]:
    """The tokens of a generated statement or proof.

    Raises:
        UserError: at the first piece of text that is no token.

    >>> tokenize("∀ p : Prop, ¬¬p")
    ['∀', 'p', ':', 'Prop', ',', '¬', '¬', 'p']
    """
    tokens: list[str] = []
    position = 0
    while position < len(text):
        if text[position] == " ":
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise UserError(
                f"{text[position : position + 20]!r} starts with no token of generated theorems; see TOKENS"
            )
        tokens.append(match[0])
        position = match.end()
    return tokens
