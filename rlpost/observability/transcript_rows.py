"""Transcripts read back: the finished steps of a run folder, and what is wrong with their files."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from rlpost.errors import UserError

_STEP = re.compile(r"step_(\d+)\.jsonl")
_NEEDED = ("prompt_id", "prompt", "member", "status", "outcome", "reward_total", "segments", "tokens")
"""What rows have had since trajectories are recorded segment by segment; older ones lack some of it."""


def rows(folder: Path, count: Counter[str], note: Callable[[str], object]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a run's transcripts with their steps, step by step.

    Args:
        folder: the run folder.
        count: counted up: ``read`` for each line, ``damaged`` for one that is no row, ``old`` for one that an earlier
            version wrote and that lacks what is needed.
        note: called with a line about each file that is not read whole.

    Raises:
        UserError: if there are no transcripts.
    """
    home = folder / "transcripts"
    found = {int(match[1]): path for path in home.glob("*.jsonl") if (match := _STEP.fullmatch(path.name))}
    begun = sorted(home.glob("*.partial"))
    if not found:
        said = f"; {len(begun)} unfinished, which are not read" if begun else ""
        raise UserError(f"{home}: no transcripts{said}; a run writes them with logging.transcripts_every above 0")
    for path in begun:
        note(f"{path}: unfinished (its step was interrupted); not read")
    for step, path in sorted(found.items()):
        for row in _of_file(path, count, note):
            yield step, row


def _of_file(path: Path, count: Counter[str], note: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    bad: dict[str, list[int]] = {"damaged": [], "old": []}
    try:
        # bytes, because text files also end lines at characters that JSON allows inside strings
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                count["read"] += 1
                row = _row(line)
                if row is None or (fault := _fault(row)):
                    kind = "damaged" if row is None else fault
                    bad[kind].append(number)
                    count[kind] += 1
                else:
                    yield row
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); mend or remove the file") from None
    for kind, numbers in bad.items():
        if numbers:
            what = "not whole rows" if kind == "damaged" else "rows of an earlier version, without what is needed"
            note(f"{path}: {len(numbers)} lines are {what} (first: line {numbers[0]}); left out")


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # not UTF-8, cut, or nested without end
        return None
    return cast("dict[str, Any]", row) if isinstance(row, dict) else None


def _fault(row: dict[str, Any]) -> str:
    if any(key not in row for key in _NEEDED):
        return "old"
    segments, total = row["segments"], row["reward_total"]
    right = (
        isinstance(row["prompt_id"], str)
        and isinstance(row["prompt"], str | list)
        and type(row["tokens"]) is int
        and (total is None or (type(total) in (int, float) and math.isfinite(total)))
        and isinstance(segments, list)
        and all(isinstance(one, dict) and _is_segment(one) for one in cast("list[Any]", segments))
    )
    return "" if right else "damaged"


def _is_segment(segment: dict[str, Any]) -> bool:
    if type(segment.get("stop")) is not int:
        return False
    return segment.get("origin") == "prompt" or isinstance(segment.get("text"), str)
