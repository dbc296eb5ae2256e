"""Where a model's thought ends and its answer begins, in the tags of today's models."""

from __future__ import annotations

import re

_END = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)>|<\|end_of_thought\|>|◁/think▷|\[/THINK\]"
    r"|<\|channel\|>final<\|message\|>|</seed:think>"
)
_START = re.compile(
    r"<(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)>|<\|begin_of_thought\|>|◁think▷|\[THINK\]"
    r"|<\|channel\|>analysis<\|message\|>|<seed:think>"
)


def answer_start(text: str) -> int | None:
    """Index of the first character after the last thought, 0 without one; None for a text that ends inside a thought.

    The opening tag may be absent: chat templates often write it themselves.

    >>> answer_start("<think>hm</think>4"), answer_start("4"), answer_start("<think>hm")
    (17, 0, None)
    """
    end = 0
    for found in _END.finditer(text):
        end = found.end()
    return None if _START.search(text, end) else end
