"""Decontamination: training prompts that ask what a held-out prompt asks.

Training on a held-out theorem under another name makes its evaluation worthless without any error.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rlpost.errors import DataError
from rlpost.types import WITHOUT_CANDIDATES, Message, Prompt

_log = logging.getLogger(__name__)


def normalise_text(text: str) -> str:
    r"""The text in Unicode's normal form C with every run of white space as one blank.

    >>> normalise_text("a :\n  b ")
    'a : b'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def question(prompt: Prompt) -> str:
    """What a prompt asks, independent of its id and its white space.

    This is its statement with the binders before it where the data has one, else its text without the candidates that
    were put into it.
    """
    statement = prompt.columns.get("statement")
    if isinstance(statement, str):
        return normalise_text(f"{prompt.columns.get('binders') or ''} : {statement}")
    plain = prompt.columns.get(WITHOUT_CANDIDATES)
    if isinstance(plain, str):  # the same question may come with other candidates, or in another order
        return normalise_text(plain)
    if prompt.text is not None:
        return normalise_text(prompt.text)
    return "\n".join(_said(message) for message in prompt.messages or ())


def _said(message: Message) -> str:
    calls = message.fields.get("tool_calls")
    return f"{message.role}: {normalise_text(message.text)}" + (f" {calls}" if calls else "")


@dataclass(frozen=True, slots=True)
class Contamination:
    """Positions of the contaminated training prompts, and the ids (training, held-out) of one such pair."""

    positions: frozenset[int]
    example: tuple[str, str] | None


def find_contamination(train: Sequence[Prompt], held_out: Sequence[Prompt]) -> Contamination:
    """Find the training prompts that are held out as well."""
    known = {question(prompt): prompt.id for prompt in held_out}
    found = {place: known[asked] for place, prompt in enumerate(train) if (asked := question(prompt)) in known}
    first = min(found, default=None)
    return Contamination(frozenset(found), None if first is None else (train[first].id, found[first]))


def decontaminate(train: list[Prompt], held_out: Sequence[Prompt], rule: str) -> list[Prompt]:
    """The training prompts without those that are held out as well, whose number is logged.

    Args:
        train: training prompts.
        held_out: evaluation prompts.
        rule: ``data.contamination``: ``refuse``, ``drop`` or ``allow``.

    Raises:
        DataError: if there are some and ``rule`` is ``refuse``, or ``drop`` would leave none; it names their number.
    """
    found = find_contamination(train, held_out)
    if found.example is None or rule == "allow":
        return train
    if rule == "refuse" or len(found.positions) == len(train):
        raise DataError(
            f"data.train: {len(found.positions)} of {len(train)} prompts are held out as well (training prompt "
            f"{found.example[0]!r} asks what held-out prompt {found.example[1]!r} asks); set data.contamination to "
            "drop, to train without them, or to allow"
        )
    _log.warning(
        "data.contamination: drop leaves out %d of %d training prompts, which are held out as well (e.g. %r)",
        len(found.positions),
        len(train),
        found.example[0],
    )
    return [prompt for place, prompt in enumerate(train) if place not in found.positions]
