"""Data sources from published conversations: ReDial, and Reddit-v2 in the columns that Rank-GRPO's authors use."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlpost.data.decontaminate import normalise_text
from rlpost.errors import DataError, UserError
from rlpost_verifiers.catalog.ground_truth import ELSEWHERE_KEY, RELEVANT_KEY, SEEN_KEY, Columns, Reader, names_of
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import load_catalog
from rlpost_verifiers.catalog.rows import read_rows
from rlpost_verifiers.catalog.titles import parse_title

_MENTION = re.compile(r"@(\d+)")
_log = logging.getLogger(__name__)

Outside = Literal["keep", "drop", "refuse"]


def reddit(
    path: str,
    time_column: str | None = None,
    since: str | None = None,
    before: str | None = None,
    split: str | None = None,
    catalog: str | None = None,
    nothing_relevant: Outside = "keep",
) -> list[dict[str, Any]]:
    """The data source ``reddit_conversations``: rows with ``prompt`` and ``groundtruth_with_release_year``.

    A conversation occurs once for every user who answered it. The relevant items of the other rows become the column
    ``relevant_elsewhere`` of each row, and ``conversation`` numbers the conversations, for metrics per conversation
    instead of per row. A row that repeats another one (conversation and items, in any order) is left out.

    Args:
        path: folder written by ``save_to_disk``, as the authors publish the data; Parquet; or JSON lines.
        time_column: column with the time of a row, as text that sorts like time (``2022-11``).
        since: keep rows from this time on; None: no lower bound.
        before: keep rows before this time; None: no upper bound.
        split: split of a folder that holds several (``train``, ``validation``, ``test``).
        catalog: catalog file for ``nothing_relevant``; None: the films that ship.
        nothing_relevant: treatment of rows with no relevant item in the catalog, see `with_relevant`.

    Raises:
        DataError: for a row without these columns, or bounds without a time column.
    """
    rows = [row for row in read_rows(path, split) if _within(row, time_column, since, before, path)]
    conversations: dict[str, int] = {}
    wanted: dict[int, list[frozenset[tuple[str, str]]]] = defaultdict(list)
    kept: list[tuple[int, dict[str, Any], frozenset[tuple[str, str]]]] = []
    for number, row in enumerate(rows):
        if "prompt" not in row or RELEVANT_KEY not in row:
            raise DataError(
                f"{path}, row {number}: no column 'prompt' or {RELEVANT_KEY!r} (there are {', '.join(row)})"
            )
        try:
            names = [(title, str(year)) for title, year, _ in names_of(row[RELEVANT_KEY], RELEVANT_KEY)]
        except DataError as error:
            raise DataError(f"{path}, row {number}: {error}") from None
        conversation = conversations.setdefault(_text(row["prompt"]), len(conversations))
        items = frozenset(names)
        if items in wanted[conversation]:
            continue
        wanted[conversation].append(items)
        kept.append((conversation, row, items))
    made = [
        {
            **row,
            "id": f"reddit-{place}",
            "conversation": conversation,
            ELSEWHERE_KEY: [list(item) for item in sorted(frozenset().union(*wanted[conversation]) - items)],
        }
        for place, (conversation, row, items) in enumerate(kept)
    ]
    return with_relevant(made, catalog, nothing_relevant, path)


def redial(
    path: str,
    least_turns: int = 1,
    liked_only: bool = False,
    catalog: str | None = None,
    nothing_relevant: Outside = "keep",
) -> list[dict[str, Any]]:
    """The data source ``redial``: a row for every message in which ReDial's recommender names new films.

    Messages in a row by one speaker are one turn; what the recommender says before it names a film, in the same turn,
    belongs to the answer, so a prompt ends with the seeker's turn.

    Args:
        path: ReDial's JSON lines (Li et al. 2018), with ``messages``, ``movieMentions`` and the questionnaires; or
            the same columns as Parquet, or in a folder written by ``save_to_disk``.
        least_turns: smallest number of messages before the recommender's message.
        liked_only: leave out films that the seeker's questionnaire marks as not liked.
        catalog: catalog file for ``nothing_relevant``; None: the films that ship.
        nothing_relevant: treatment of rows with no relevant item in the catalog, see `with_relevant`.

    Returns:
        Rows with ``id``, ``prompt`` (chat messages, film numbers replaced by names), ``seen_titles`` (films mentioned
        earlier) and ``groundtruth_with_release_year``.

    Raises:
        DataError: for a row that is not a ReDial conversation.
    """
    result: list[dict[str, Any]] = []
    for number, row in enumerate(read_rows(path)):
        messages = row.get("messages")
        if not isinstance(messages, list) or "initiatorWorkerId" not in row:
            raise DataError(f"{path}, row {number}: no ReDial conversation (there are {', '.join(row)})")
        strange = next((one for one in messages if not isinstance(one, Mapping)), None)
        if strange is not None:
            raise DataError(f"{path}, row {number}: message {strange!r:.60} is no mapping with 'text'")
        result += _turns(row, messages, least_turns, liked_only, str(row.get("conversationId", number)))
    return with_relevant(result, catalog, nothing_relevant, path)


def with_relevant(
    rows: list[dict[str, Any]], catalog: str | None, rule: Outside, where: str = "data"
) -> list[dict[str, Any]]:
    """The rows, without those that have no relevant item in a catalog where the rule says so.

    Args:
        rows: rows with ``groundtruth_with_release_year``.
        catalog: catalog file; None: the films that ship. It is read for ``drop`` and ``refuse`` only.
        rule: ``keep`` leaves them to the verifier (its ``relevant_required`` refuses them, or counts what is outside
            the catalog); ``drop`` leaves them out, and a warning counts them; ``refuse`` is an error that counts them.
        where: name of the data in messages.

    Raises:
        UserError: for an unknown rule.
        DataError: for such rows with ``refuse``, or if none is left.
    """
    if rule not in ("keep", "drop", "refuse"):
        raise UserError(f"{where}: nothing_relevant is {rule!r}; use 'keep', 'drop' or 'refuse'")
    if rule == "keep":
        return rows
    found = load_catalog(catalog)
    reader = Reader(found, CatalogIndex(found.items), Columns())
    kept = [row for row in rows if reader.ground_truth(row, required=False).relevant]
    lost = len(rows) - len(kept)
    if not lost:
        return rows
    chosen = {id(row) for row in kept}
    example = next(row for row in rows if id(row) not in chosen)
    told = f"{lost} of {len(rows)} rows have no relevant item in the catalog (e.g. {example[RELEVANT_KEY]!r:.80})"
    if rule == "refuse" or not kept:
        raise DataError(f"{where}: {told}; give another catalog, or set nothing_relevant to drop or keep")
    _log.warning("%s: %s; left out", where, told)
    return kept


def _turns(
    row: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], least_turns: int, liked_only: bool, identity: str
) -> list[dict[str, Any]]:
    # an empty mapping is written as an empty list in the published files
    names = row["movieMentions"] if isinstance(row.get("movieMentions"), Mapping) else {}
    answers = row["initiatorQuestions"] if isinstance(row.get("initiatorQuestions"), Mapping) else {}
    result: list[dict[str, Any]] = []
    named: list[str] = []
    said: list[dict[str, str]] = []
    for place, message in enumerate(messages):
        text = str(message.get("text") or "")
        mentioned = [film for film in dict.fromkeys(_MENTION.findall(text)) if names.get(film)]
        fresh = [film for film in mentioned if film not in named]
        seeker = message.get("senderWorkerId") == row["initiatorWorkerId"]
        if liked_only:
            fresh = [film for film in fresh if (answers.get(film) or {}).get("liked", 1) != 0]
        prompt = _up_to_user(said)
        if fresh and not seeker and place >= least_turns and prompt:
            result.append(
                {
                    "id": f"redial-{identity}-{place}",
                    "prompt": prompt,
                    SEEN_KEY: [str(names[film]).strip() for film in named],
                    RELEVANT_KEY: [list(_pair(str(names[film]))) for film in fresh],
                }
            )
        named += [film for film in mentioned if film not in named]
        spoken = _MENTION.sub(lambda found: str(names.get(found[1]) or "a film").strip(), text)
        _say(said, "user" if seeker else "assistant", spoken)
    return result


def _say(said: list[dict[str, str]], role: str, text: str) -> None:
    """Add a message; one of the last speaker goes on with that turn, as chat templates take turns only."""
    if said and said[-1]["role"] == role:
        said[-1]["content"] = f"{said[-1]['content']}\n{text}"
    elif text.strip():
        said.append({"role": role, "content": text})


def _up_to_user(said: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    last = max((number for number, turn in enumerate(said) if turn["role"] == "user"), default=-1)
    return [dict(turn) for turn in said[: last + 1]]


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
    if not isinstance(prompt, Sequence) or not all(isinstance(turn, Mapping) for turn in prompt):
        raise DataError(f"column 'prompt' holds {prompt!r:.80}; a text or a list of messages is needed")
    return "\n".join(normalise_text(str(turn.get("content", ""))) for turn in prompt)
