"""Prompts that ask the same: twice in a data set, or in training and in what is held out.

A held-out theorem that is trained on under another name makes every figure on it worthless, and nothing crashes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rlpost.types import Prompt


def squeeze(text: str) -> str:
    r"""The text in Unicode's normal form C with every run of white space as one blank.

    >>> squeeze("a :\n  b ")
    'a : b'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def question(prompt: Prompt) -> str:
    """What a prompt asks, whatever it is called and however it is spaced: its statement with the binders before it,
    where the data has one, else its whole text.
    """
    statement = prompt.columns.get("statement")
    if isinstance(statement, str):
        return squeeze(f"{prompt.columns.get('binders') or ''} : {statement}")
    if prompt.text is not None:
        return squeeze(prompt.text)
    return "\n".join(f"{message.role}: {squeeze(message.content)}" for message in prompt.messages or ())


@dataclass(frozen=True, slots=True)
class Overlap:
    """Training prompts (positions) that ask what a held-out one asks, and an example of both ids."""

    positions: frozenset[int]
    example: tuple[str, str] | None


def overlap(train: Sequence[Prompt], held_out: Sequence[Prompt]) -> Overlap:
    """Which training prompts are held out as well."""
    known = {question(prompt): prompt.id for prompt in held_out}
    found = {place: known[asked] for place, prompt in enumerate(train) if (asked := question(prompt)) in known}
    first = min(found, default=None)
    return Overlap(frozenset(found), None if first is None else (train[first].id, found[first]))
