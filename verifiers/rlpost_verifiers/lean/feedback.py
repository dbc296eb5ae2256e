"""What a policy is told of a rejected proof: Lean's messages, placed in the policy's own text and cut to a length.

Nothing is read from a message but the place that this package wrote before it; verdicts come from the audited check.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlpost.types import Verdict
from rlpost_verifiers.lean.blocks import cut_tail, find_blocks

_PLACED = re.compile(r"(error|warning|information) at ([0-9]+):([0-9]+): ", re.ASCII)
_ELSEWHERE = re.compile(r"(error|warning|information) at the theorem: ")
_CUT = " …"


def feedback(verdict: Verdict, answer: str, proof: str, max_messages: int = 3, max_characters: int = 1000) -> str:
    r"""Lean's messages about a rejected answer, errors first, one after another on lines of their own.

    Places are ``line:column`` in the block of Lean that the answer holds, or in the whole answer where it has none,
    lines from 1 and columns from 0 as Lean counts. Where the proof was not found in it again, a message has no place.

    Args:
        verdict: the verdict, with its messages as evidence.
        answer: the policy's text.
        proof: the part of it that Lean read; empty if there was none.
        max_messages: number of messages that are told.
        max_characters: length of all of them together; the rest is cut off and ``…`` stands for it.

    >>> said = Verdict("rejected", 0.0, "failed", evidence={"messages": ["error at 2:4: unsolved goals"]})
    >>> feedback(said, "```lean\ntheorem t : True := by\n  skip\n```", "by\n  skip")
    'error at 2:4: unsolved goals'
    """
    given = [str(one) for one in verdict.evidence.get("messages", ())] or [f"rejected: {verdict.reason}"]
    places = places_in(answer, proof)
    text = "\n".join(_placed(one, places) for one in given[:max_messages])
    return text if len(text) <= max_characters else text[: max_characters - len(_CUT)].rstrip() + _CUT


def places_in(answer: str, proof: str) -> list[tuple[int, int] | None]:
    r"""Where each line of a proof stands in the answer: its line, from 1, and by how much its columns are shifted.

    None for a line that is not there as it is, such as a ``by`` that was put before a block of tactics.

    >>> places_in("theorem t : True := by\n  skip", "by\n  skip")
    [(1, 20), (2, 0)]
    >>> places_in("skip\ntrivial", "by\n  skip\n  trivial")
    [None, (1, -2), (2, -2)]
    """
    blocks = find_blocks(cut_tail(answer.replace("\r\n", "\n").rpartition("</think>")[2]))
    lines = proof.split("\n")
    added = 1 if lines[0].strip() == "by" and len(lines) > 1 else 0
    for block in reversed(blocks):
        own = block.text.split("\n")
        for skipped in dict.fromkeys((0, added)):
            start = _find(own, lines[skipped:])
            if start is not None:
                found = [_shift(own, start + i, line) for i, line in enumerate(lines[skipped:])]
                return [None] * skipped + found
    return [None] * len(lines)


def _find(own: Sequence[str], lines: Sequence[str]) -> int | None:
    """The line of a block at which these lines begin, the first perhaps within it; the last such place."""
    wanted = [line.strip() for line in lines]
    for start in range(len(own) - len(wanted), -1, -1):
        first, *rest = (line.strip() for line in own[start : start + len(wanted)])
        ends = first == wanted[0] or (bool(wanted[0]) and first.endswith(wanted[0]))
        if ends and rest == wanted[1:]:
            return start
    return None


def _shift(own: Sequence[str], at: int, line: str) -> tuple[int, int]:
    margin = len(line) - len(line.lstrip())
    return at + 1, len(own[at].rstrip()) - len(line.strip()) - margin


def _placed(message: str, places: Sequence[tuple[int, int] | None]) -> str:
    """A message with its place in the answer instead of that in the proof."""
    if found := _ELSEWHERE.match(message):
        return f"{found[1]} in the theorem: {message[found.end() :]}"
    found = _PLACED.match(message)
    if found is None:
        return message
    line, column = int(found[2]), int(found[3])
    text = message[found.end() :]
    if line == len(places) + 1 and places[-1] is not None:  # Lean has read on after the last line
        return f"{found[1]} at the end: {text}"
    place = places[line - 1] if 0 < line <= len(places) else None
    if place is None:
        return f"{found[1]}: {text}"
    return f"{found[1]} at {place[0]}:{max(column + place[1], 0)}: {text}"
