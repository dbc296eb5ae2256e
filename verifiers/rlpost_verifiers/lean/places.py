"""The places that Lean's messages name, in the model's own text instead of the proof that was taken from it.

Only the place that this package wrote before a message is read; what follows may repeat what the model wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rlpost.types import Verdict
from rlpost_verifiers.lean.blocks import cut_tail, find_blocks
from rlpost_verifiers.lean.task import ProofTask

_PLACED = re.compile(r"(error|warning|information) at ([0-9]+):([0-9]+): ", re.ASCII)
_ELSEWHERE = re.compile(r"(error|warning|information) at the theorem: ")

Place = tuple[int, int]
"""Line in the model's text, from 1, and the number to add to a column of the proof's line."""


def in_answer(verdict: Verdict, task: ProofTask, answer: str) -> Verdict:
    r"""A verdict whose messages give places in the answer: in its block of Lean, or in all of it where it has none.

    Lines count from 1 and columns from 0, as Lean counts. Where a line of the proof is not found in the answer again,
    the message has no place.

    >>> said = Verdict("rejected", 0.0, "failed", evidence={"messages": ["error at 2:4: unsolved goals"]})
    >>> task = ProofTask("True", "by\n    skip")
    >>> in_answer(said, task, "```lean\ntheorem t : True := by\n  skip\n```").evidence["messages"]
    ['error at 2:2: unsolved goals']
    """
    messages = verdict.evidence.get("messages")
    if not messages:
        return verdict
    places = places_in(answer, task.proof)
    return replace(verdict, evidence={**verdict.evidence, "messages": [_placed(str(one), places) for one in messages]})


def places_in(answer: str, proof: str) -> list[Place | None]:
    r"""Where each line of a proof stands in an answer; None for one that was added, such as a ``by`` before tactics.

    >>> places_in("theorem t : True := by\n  skip", "by\n  skip")
    [(1, 20), (2, 0)]
    >>> places_in("skip\ntrivial", "by\n  skip\n  trivial")
    [None, (1, -2), (2, -2)]
    """
    lines = proof.split("\n")
    added = 1 if lines[0].strip() == "by" and len(lines) > 1 else 0
    for block in reversed(find_blocks(cut_tail(answer.replace("\r\n", "\n").rpartition("</think>")[2]))):
        own = block.text.split("\n")
        for skipped in dict.fromkeys((0, added)):
            start = _find(own, lines[skipped:])
            if start is not None:
                return [None] * skipped + [_place(own, start + i, line) for i, line in enumerate(lines[skipped:])]
    return [None] * len(lines)


def _find(own: Sequence[str], lines: Sequence[str]) -> int | None:
    """The line of a block at which these lines begin, the first perhaps within it; the last such place."""
    wanted = [line.strip() for line in lines]
    for start in range(len(own) - len(wanted), -1, -1):
        first, *rest = (line.strip() for line in own[start : start + len(wanted)])
        if first.endswith(wanted[0]) and bool(first) == bool(wanted[0]) and rest == wanted[1:]:
            return start
    return None


def _place(own: Sequence[str], at: int, line: str) -> Place:
    margin = len(line) - len(line.lstrip())
    return at + 1, len(own[at].rstrip()) - len(line.strip()) - margin


def _placed(message: str, places: Sequence[Place | None]) -> str:
    if found := _ELSEWHERE.match(message):
        return f"{found[1]} in the theorem: {message[found.end() :]}"
    found = _PLACED.match(message)
    if found is None:
        return message
    line, column, text = int(found[2]), int(found[3]), message[found.end() :]
    if line == len(places) + 1 and places[-1] is not None:  # Lean has read on after the last line
        return f"{found[1]} at the end: {text}"
    place = places[line - 1] if 0 < line <= len(places) else None
    if place is None:
        return f"{found[1]}: {text}"
    return f"{found[1]} at {place[0]}:{max(column + place[1], 0)}: {text}"
