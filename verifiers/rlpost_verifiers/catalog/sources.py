"""Data sources from published conversations: ReDial, and Reddit-v2 in the columns that Rank-GRPO's authors use."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.data.decontaminate import normalise_text
from rlpost.data.jsonl import read_jsonl
from rlpost.errors import DataError
from rlpost_verifiers.catalog.ground_truth import ELSEWHERE_KEY, RELEVANT_KEY, SEEN_KEY
from rlpost_verifiers.catalog.titles import parse_title

_MENTION = re.compile(r"@(\d+)")


def reddit(
    path: str,
    time_column: str | None = None,
    since: str | None = None,
    before: str | None = None,
) -> list[dict[str, Any]]:
    """The data source ``reddit_conversations``: rows with ``prompt`` and ``groundtruth_with_release_year``.

    A conversation occurs once for every user who answered it. The relevant items of the other rows become the column
    ``relevant_elsewhere`` of each row, and ``conversation`` numbers the conversations, for metrics per conversation
    instead of per row. A row that repeats another one (conversation and items, in any order) is left out.

    Args:
        path: JSON-lines file.
        time_column: column with the time of a row, as text that sorts like time (``2022-11``).
        since: keep rows from this time on; None: no lower bound.
        before: keep rows before this time; None: no upper bound.

    Raises:
        DataError: for a row without these columns, or bounds without a time column.
    """
    rows = [row for row in read_jsonl(path) if _within(row, time_column, since, before, path)]
    conversations: dict[str, int] = {}
    wanted: dict[int, list[frozenset[tuple[str, str]]]] = defaultdict(list)
    kept: list[tuple[int, dict[str, Any], frozenset[tuple[str, str]]]] = []
    for number, row in enumerate(rows):
        if "prompt" not in row or RELEVANT_KEY not in row:
            raise DataError(
                f"{path}, row {number}: no column 'prompt' or {RELEVANT_KEY!r} (there are {', '.join(row)})"
            )
        conversation = conversations.setdefault(_text(row["prompt"]), len(conversations))
        items = frozenset((str(title), str(year)) for title, year in row[RELEVANT_KEY])
        if items in wanted[conversation]:
            continue
        wanted[conversation].append(items)
        kept.append((conversation, row, items))
    return [
        {
            **row,
            "id": f"reddit-{place}",
            "conversation": conversation,
            ELSEWHERE_KEY: [list(item) for item in sorted(frozenset().union(*wanted[conversation]) - items)],
        }
        for place, (conversation, row, items) in enumerate(kept)
    ]


def redial(path: str, least_turns: int = 1, liked_only: bool = False) -> list[dict[str, Any]]:
    """The data source ``redial``: a row for every message in which ReDial's recommender names new films.

    Args:
        path: ReDial's JSON lines (Li et al. 2018), with ``messages``, ``movieMentions`` and the questionnaires.
        least_turns: smallest number of messages before the recommender's message.
        liked_only: leave out films that the seeker's questionnaire marks as not liked.

    Returns:
        Rows with ``id``, ``prompt`` (chat messages, film numbers replaced by names), ``seen_titles`` (films mentioned
        earlier) and ``groundtruth_with_release_year``.

    Raises:
        DataError: for a row that is not a ReDial conversation.
    """
    result: list[dict[str, Any]] = []
    for number, row in enumerate(read_jsonl(path)):
        messages = row.get("messages")
        if not isinstance(messages, Sequence) or "initiatorWorkerId" not in row:
            raise DataError(f"{path}, row {number}: no ReDial conversation (there are {', '.join(row)})")
        result += _turns(row, messages, least_turns, liked_only, str(row.get("conversationId", number)))
    return result


def _turns(
    row: Mapping[str, Any], messages: Sequence[Any], least_turns: int, liked_only: bool, identity: str
) -> list[dict[str, Any]]:
    names = row.get("movieMentions") or {}
    answers = row.get("initiatorQuestions") or {}
    result: list[dict[str, Any]] = []
    named: list[str] = []
    said: list[dict[str, str]] = []
    for place, message in enumerate(messages):
        text = str(message.get("text", ""))
        mentioned = [film for film in dict.fromkeys(_MENTION.findall(text)) if names.get(film)]
        fresh = [film for film in mentioned if film not in named]
        seeker = message.get("senderWorkerId") == row["initiatorWorkerId"]
        if liked_only and isinstance(answers, Mapping):
            fresh = [film for film in fresh if answers.get(film, {}).get("liked", 1) != 0]
        if fresh and not seeker and len(said) >= least_turns:
            result.append(
                {
                    "id": f"redial-{identity}-{place}",
                    "prompt": [dict(turn) for turn in said],
                    SEEN_KEY: [str(names[film]).strip() for film in named],
                    RELEVANT_KEY: [list(_pair(str(names[film]))) for film in fresh],
                }
            )
        named += [film for film in mentioned if film not in named]
        spoken = _MENTION.sub(lambda found: str(names.get(found[1]) or "a film").strip(), text)
        said.append({"role": "user" if seeker else "assistant", "content": spoken})
    return result


def _pair(name: str) -> tuple[str, str | None]:
    title, year = parse_title(name)
    return title or name.strip(), None if year is None else str(year)


def _within(row: Mapping[str, Any], column: str | None, since: str | None, before: str | None, path: str) -> bool:
    if since is None and before is None:
        return True
    if column is None or column not in row:
        raise DataError(f"{path}: a split by time needs time_column (there are {', '.join(row)})")
    time = str(row[column])
    return (since is None or time >= since) and (before is None or time < before)


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return normalise_text(prompt)
    return "\n".join(normalise_text(str(turn.get("content", ""))) for turn in prompt)
