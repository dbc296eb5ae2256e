"""What a run says of its data at the start: nothing that ends it, all of it easy to miss."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from rlpost.config.schema import ScoringSection
from rlpost.data.text import as_text, is_missing, shown
from rlpost.errors import DataError
from rlpost.types import Prompt

_GOLD_COLUMNS = ("answer", "solution", "ground_truth", "final_answer", "gold", "target")
"""Usual names of a gold answer's column; ``verifier_args.gold_key`` goes before them."""

_LEAST_GOLD = 4
"""Characters of a gold answer that says something if a prompt holds it: most problems hold the number 12."""


def gold_in_prompts(prompts: Sequence[Prompt], scoring: ScoringSection, where: str) -> str | None:
    """A line on prompts that hold their own gold answer as a whole word; None for none.

    Args:
        prompts: prompts with their columns.
        scoring: names the verifier's column.
        where: name of the data set.
    """
    key = scoring.verifier_args.get("gold_key")
    names = (key,) if isinstance(key, str) else _GOLD_COLUMNS
    found = [(prompt, column) for prompt in prompts for column in names if _holds(prompt, prompt.columns.get(column))]
    if not found:
        return None
    prompt, column = found[0]
    count = len({prompt.id for prompt, _ in found})
    return (
        f"{where}: {count} of {len(prompts)} prompts hold their own gold answer (column {column!r}), first prompt "
        f"{shown(prompt.id)}: {shown(prompt.columns[column])}"
    )


def _holds(prompt: Prompt, gold: Any) -> bool:
    if is_missing(gold):
        return False
    try:
        text = " ".join(as_text(gold, "gold").split())
    except DataError:  # no text: lists and mappings are for the verifier to read
        return False
    # GSM8K's column ends with the answer after a derivation
    text = text.rsplit("#### ", 1)[-1]
    if len(text) < _LEAST_GOLD:
        return False
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", " ".join(_written(prompt).split())) is not None


def special_in_prompts(prompts: Sequence[Prompt], special: Collection[str], where: str) -> str | None:
    """A line on prompts whose text holds the text of special tokens, which becomes those tokens: a ``<|im_end|>`` in a
    user's message ends it. None for none, and for text prompts that mostly do (they are rendered templates).

    Args:
        prompts: prompts.
        special: texts of the special tokens.
        where: name of the data set.
    """
    if not special:
        return None
    pattern = re.compile("|".join(re.escape(one) for one in sorted(special, key=len, reverse=True)))
    found = [(prompt, match[0]) for prompt in prompts if (match := pattern.search(_written(prompt)))]
    rendered = [prompt for prompt, _ in found if prompt.text is not None]
    texts = sum(prompt.text is not None for prompt in prompts)
    if 2 * len(rendered) > texts:
        found = [(prompt, token) for prompt, token in found if prompt.text is None]
    if not found:
        return None
    prompt, token = found[0]
    return (
        f"{where}: {len(found)} of {len(prompts)} prompts hold the text of a special token, which becomes that token, "
        f"first prompt {shown(prompt.id)}: {token!r}"
    )


def _written(prompt: Prompt) -> str:
    """What the data, not a chat template, wrote of a prompt."""
    return prompt.text if prompt.text is not None else "\n".join(message.text for message in prompt.messages or ())
