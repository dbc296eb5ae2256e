r"""The tactic in what a model writes when it is asked for one.

Models wrap it: in a code block or in backticks, after their thought, after a ``by``, with comments, with the token that
ends a turn. All of that is taken off; anything that is then no single step is left to Lean, which says what is wrong.
"""

from __future__ import annotations

import re

from rlpost_verifiers.lean.blocks import find_blocks
from rlpost_verifiers.lean.dojo.gym import find_problem, normalise
from rlpost_verifiers.lean.extract import ExtractSettings, NoProofError, extract_proof
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.text import CommentError, blank_comments

_ANSWER = ProofTask("True", "")
_RAW = ExtractSettings("raw")
_INLINE = re.compile(r"\s*(`{1,2})(?!`)([^`\n]+)\1\s*")
_BY = re.compile(r"\s*(?::=\s*)?by(?![\w'!?.])")


def read_tactic(text: str) -> str:
    r"""The tactic in a model's answer: one, or several lines that count as one.

    Raises:
        NoProofError: if there is none, or it must not be passed to Lean; the message says why, for the model to read.

    >>> read_tactic("<think>easy</think>\n```lean4\nby intro p h -- both\n```<|im_end|>")
    'intro p h'
    >>> read_tactic("cases h with\n| inl a => exact a\n| inr b => exact b")
    'cases h with\n| inl a => exact a\n| inr b => exact b'
    """
    answer = extract_proof(text, _ANSWER, _RAW)
    blocks = find_blocks(answer)
    if len(blocks) != 1:
        raise NoProofError(f"the answer holds {len(blocks)} blocks of Lean; write one tactic")
    code = blocks[0].text
    if inline := _INLINE.fullmatch(code):
        code = inline[2]
    if '"' not in code and "«" not in code:  # in a text or a quoted name, what looks like a comment is none
        try:
            code = blank_comments(code)
        except CommentError as error:
            raise NoProofError(str(error)) from error
    if by := _BY.match(code):
        code = " " * by.end() + code[by.end() :] if "\n" not in code[: by.end()] else code[by.end() :]
    tactic = normalise(code.strip("\n"))
    if problem := find_problem(tactic):
        raise NoProofError(problem)
    return tactic
