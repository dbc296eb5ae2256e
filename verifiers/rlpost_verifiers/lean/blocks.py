r"""Finds the code blocks of an answer as models write them, where Markdown's rules are too strict.

A block may be indented as a whole, close on the last line of its code, stand open at the end of the answer, or be
tagged ``lean 4``. An answer without any block is one block, as is one that only closes the block of its prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^([ >]*)(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_CLOSING_AT_LINE_END = re.compile(r"(?<=[^\s`])[ ]*```[ ]*$", re.MULTILINE)
_LEAN_TAG = re.compile(r"(?:lean[ -]?4?|lean4[\w:.-]*|tactics?)?(?:\s+[\w:=.{}\"'-]+)*", re.IGNORECASE)
# Tokens that end a turn, which some decoders leave in the text.
_TAIL = re.compile(
    r"(?:\s*(?:<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|eom_id|end|EOT)\|>|<｜[^｜\n]{1,40}｜>|</s>|<eos>"
    r"|<end_of_turn>|<\|return\|>))+\s*\Z"
)
_TAIL_LENGTH = 400


@dataclass(frozen=True, slots=True)
class Block:
    """The code between two fences.

    Attributes:
        text: its lines, without the indentation of the opening fence.
        closed: whether a fence closes it.
        opened: whether a fence opens it; else the prompt did, or the whole answer is code.
    """

    text: str
    closed: bool = True
    opened: bool = True


def cut_tail(text: str) -> str:
    r"""``text`` without the special tokens at its end.

    >>> cut_tail("rfl\n```<|im_end|>\n")
    'rfl\n```'
    """
    kept = max(0, len(text) - _TAIL_LENGTH)
    found = _TAIL.search(text, kept)
    return text[: found.start()] if found else text


def find_blocks(text: str) -> list[Block]:
    r"""The blocks of Lean in an answer, in order.

    >>> [block.text for block in find_blocks("So:\n  ```lean 4\n  rfl\n  ```\n```python\n1\n```")]
    ['rfl\n']
    >>> find_blocks("  exact h\n```\n")
    [Block(text='  exact h\n', closed=True, opened=False)]
    """
    blocks: list[Block] = []
    position, first = 0, True
    while fence := _FENCE.search(text, position):
        indent, marks, tag = fence[1], fence[2], fence[3].strip()
        if "`" in tag:  # inline code on a line of its own
            position, first = fence.end(), False
            continue
        if first and not tag and text[: fence.start()].strip() and not _has_closing(text, fence):
            return [Block(text[: fence.start()], opened=False)]
        end, after, closed = _find_end(text, fence.end(), marks)
        if _LEAN_TAG.fullmatch(tag):
            blocks.append(Block(_dedent(text[fence.end() + 1 : end], indent), closed))
        position, first = after, False
    if first:
        closing = _CLOSING_AT_LINE_END.search(text)
        return [Block(text[: closing.start()] if closing else text, closed=closing is not None, opened=False)]
    return blocks


def _has_closing(text: str, fence: re.Match[str]) -> bool:
    return _find_end(text, fence.end(), fence[2])[2]


def _find_end(text: str, start: int, marks: str) -> tuple[int, int, bool]:
    """Where the code ends, where the text after its fence begins, and whether there is a closing fence."""
    position = start
    while True:
        fence = _FENCE.search(text, position)
        limit = fence.start() if fence else len(text)
        if at_line_end := _CLOSING_AT_LINE_END.search(text, position, limit):
            return at_line_end.start(), at_line_end.end(), True
        if fence is None:
            return len(text), len(text), False
        if not fence[3].strip() and fence[2].startswith(marks):
            return fence.start(), fence.end(), True
        position = fence.end()


def _dedent(code: str, indent: str) -> str:
    if not indent:
        return code
    return "\n".join(
        line.removeprefix(indent) if line.startswith(indent) else line.lstrip() for line in code.split("\n")
    )
