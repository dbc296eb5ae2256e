"""Prompts whose answers cannot be verified, left out before a run (``data.unverifiable: drop``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlpost.errors import DataError
from rlpost.trajectory import TokenizedPrompt


@dataclass(frozen=True, slots=True)
class Dropped:
    """A prompt that was left out.

    Attributes:
        split: ``train`` or ``eval``.
        id: id of the prompt.
        reason: why its answers cannot be verified, in one line.
    """

    split: str
    id: str
    reason: str


def drop(
    prompts: Sequence[TokenizedPrompt],
    problems: Sequence[str | None],
    split: str,
    limit: float,
    log: Callable[[str], None],
) -> tuple[list[TokenizedPrompt], list[Dropped]]:
    """The prompts without a problem, in order, and those that were dropped.

    Args:
        prompts: prompts of one split.
        problems: for each why its answers cannot be verified, or None.
        split: ``train`` or ``eval``.
        limit: largest share that may be dropped, 0 to 1.
        log: called with a line on how many were dropped.

    Raises:
        DataError: if all prompts would be dropped, or more than ``limit`` of them.
    """
    pairs = list(zip(prompts, problems, strict=True))
    kept = [one for one, problem in pairs if problem is None]
    dropped = [Dropped(split, one.prompt.id, " ".join(why.split())) for one, why in pairs if why is not None]
    if not dropped:
        return kept, []
    said = f"data.{split}: {len(dropped)} of {len(pairs)} prompts have answers that cannot be verified"
    first = f"first, prompt {dropped[0].id!r}: {dropped[0].reason}"
    allowed = int(limit * len(pairs) + 1e-9)
    if not kept or len(dropped) > allowed:
        raise DataError(f"{said}, and data.unverifiable_limit {limit:g} allows {allowed} to be dropped; {first}")
    log(f"{said} and were dropped (dropped_prompts.jsonl of the run folder lists them); {first}")
    return kept, dropped
