"""Lists written as JSON: arrays of titles, or of objects with a title, wherever they stand in an answer.

Read by a scanner of its own: an answer may be cut in the middle, hold JSON between other text, or be Python's notation.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import pairwise

from rlpost_verifiers.catalog.marks import Known
from rlpost_verifiers.catalog.names import year_of
from rlpost_verifiers.catalog.outline import MOST_PLACES
from rlpost_verifiers.catalog.pieces import Part
from rlpost_verifiers.catalog.tables import TITLE_KEYS, YEAR_KEYS, column_of
from rlpost_verifiers.catalog.titles import Name, read_title

_BEGIN = re.compile(r"(?m)(?:^|[=:(]|```[\w ]*)[ \t]*(?=\[\s*(?:[\[{\"']|$)|\{\s*(?:[\"']|$))")
_TOKEN = re.compile(
    r"\"(?P<double>(?:[^\"\\]|\\.)*)(?P<close>\"|\Z)|'(?P<single>(?:[^'\\\n]|\\.|(?<=\w)'(?=\w))*)'(?=\s*[,\]}:])"
    r"|(?P<mark>[\[\]{}:,])|(?P<bare>[^\s\[\]{}:,\"']+)|(?P<odd>['\"])",
    re.DOTALL,
)
_NO_TITLES = (
    *("genre", "genres", "tag", "tags", "reason", "reasons", "cast", "actors", "starring", "director", "directors"),
    *("keywords", "themes", "author", "authors", "platforms", "similar", "seen", "watched", "liked", "pros", "cons"),
    *(
        "explanation",
        "explanations",
        "description",
        "note",
        "notes",
        "preferences",
        "language",
        "languages",
        "features",
    ),
)


_TEXTS_OF_A_PLACE = 20


@dataclass(slots=True)
class _Box:
    """An array or object that is open: its texts with their keys and spans, and whether items stand within it."""

    kind: str
    start: int
    key: str
    holds: bool = False
    texts: list[tuple[str, str, int, int]] = field(default_factory=list[tuple[str, str, int, int]])
    begins: list[int] = field(default_factory=list[int])
    """Where each text begins, its key included."""
    pending: str | None = None
    begin: int = 0
    said: tuple[str, int, int] | None = None


def read_json(text: str, start: int, known: Known) -> list[Part]:
    """The places of the JSON in a text from ``start`` on; none if there is no JSON that holds titles."""
    found: list[Part] = []
    place = start
    while len(found) < MOST_PLACES and (begin := _BEGIN.search(text, place)):
        parts, place = _scan(text, begin.end(), known)
        found += parts
    for part, after in pairwise(found):
        part.stop = after.start
    if found:
        closing = re.compile(r"[\s\]})`,;\"']*").match(text, found[-1].stop)
        found[-1].stop = closing.end() if closing else found[-1].stop
    return found


def _scan(text: str, start: int, known: Known) -> tuple[list[Part], int]:
    """The places of one JSON value that begins at ``start``, and where it ends."""
    boxes: list[_Box] = []
    closed: list[_Box] = []
    place = start
    texts = 0
    while texts < MOST_PLACES * _TEXTS_OF_A_PLACE and (found := _TOKEN.search(text, place)):
        place = found.end()
        texts += 1
        mark = found["mark"]
        if found["double"] is not None or found["single"] is not None or found["bare"] is not None:
            _say(boxes[-1], found) if boxes else None
        elif mark in ("[", "{"):
            parent = boxes[-1] if boxes else None
            key = (parent.pending or parent.key) if parent else ""
            boxes.append(_Box(mark, found.start(), key))
        elif mark == ":" and boxes and boxes[-1].said is not None:
            boxes[-1].pending, boxes[-1].begin, _ = boxes[-1].said
            boxes[-1].said = None
        elif mark in (",", "]", "}") and boxes:
            _settle(boxes[-1])
            if mark != ",":
                closed.append(_close(boxes))
                if not boxes:
                    break
    while boxes:  # the text was cut
        _settle(boxes[-1])
        closed.append(_close(boxes))
    return _places(text, closed, known), place if place > start else start + 1


def _close(boxes: list[_Box]) -> _Box:
    """The innermost box, taken off; the one around it is told whether it holds items."""
    box = boxes.pop()
    if boxes:
        boxes[-1].holds |= box.holds or (box.kind == "{" and _title_of(box) is not None)
    return box


def _title_of(box: _Box) -> int | None:
    """Which text of an object is its title; None if it has none."""
    keys = [key if said else "" for key, said, *_ in box.texts]
    title = None if box.key.lower() in _NO_TITLES else column_of(keys, TITLE_KEYS)
    # "movie_1": one of several in this object
    return None if title is None or re.search(r"\d", keys[title]) else title


def _say(box: _Box, found: re.Match[str]) -> None:
    if found["double"] is not None:
        try:
            said = json.loads(f'"{found["double"]}"', strict=False)
        except ValueError:
            said = found["double"]
    else:
        said = found["single"] if found["single"] is not None else found["bare"]
        said = said.replace("\\'", "'")
    if found["bare"] is not None and box.kind == "[":
        if len(box.texts) == 1 and re.fullmatch(r"(?:1[89]|20)\d\d", said):  # ["Alien", 1979]
            key, title, first, last = box.texts[0]
            box.texts[0] = key, f"{title} ({said})", first, last
        return  # numbers and words without quotation marks are no titles
    box.said = said, found.start(), found.end()


def _settle(box: _Box) -> None:
    """Keep the text that was read, with its key."""
    if box.said is not None:
        box.texts.append((box.pending or "", *box.said))
        box.begins.append(box.said[1] if box.pending is None else box.begin)
    elif box.pending is not None:
        box.texts.append((box.pending, "", box.begin, box.begin + len(box.pending)))
        box.begins.append(box.begin)
    box.said = box.pending = None


def _places(text: str, boxes: list[_Box], known: Known) -> list[Part]:
    items = [part for box in boxes if box.kind == "{" if (part := _object(text, box, known))]
    if not items:
        read = [(box.key, *_texts(box, known)) for box in boxes]
        strong = {key for key, good, _ in read if good}
        items = [part for key, _, parts in read if key in strong for part in parts]
    return sorted(items, key=lambda part: part.start)


def _object(text: str, box: _Box, known: Known) -> Part | None:
    """The place of an object with a title; None if it has none."""
    keys = [key for key, *_ in box.texts]
    if (title := _title_of(box)) is None:
        return None
    names = read_title(box.texts[title][1]).names
    if box.holds and not any(known(*name) for name in names):  # the name of a list or of a tool
        return None
    year = column_of(keys, YEAR_KEYS)
    if year is not None and names and names[0][1] is None and (found := year_of(box.texts[year][1])) is not None:
        names = tuple((name, found) for name, _ in names)
    stop = max(one[3] for one in box.texts)
    return _part(box.start, stop, names, known)


def _texts(box: _Box, known: Known) -> tuple[int, list[Part]]:
    """The titles that an array holds, or an object under numbers, or as its keys; first how many are certain."""
    if box.key.lower().strip("_ ") in _NO_TITLES:
        return 0, []
    found: list[Part] = []
    strong = 0
    for (key, said, start, stop), begin in zip(box.texts, box.begins, strict=True):
        if box.kind == "{" and not re.search(r"\d", key):
            continue
        by_key = box.kind == "{" and (reading := read_title(key)).dated
        reading = read_title(key if by_key else said)
        strong += reading.dated or any(known(*name) for name in reading.names)
        found.append(_part(begin if by_key else start, stop, reading.names, known))
    return strong, found


def _part(start: int, stop: int, names: tuple[Name, ...], known: Known) -> Part:
    name = next((one for one in names if known(*one)), names[0] if names else None)
    return Part("place", start, stop, names, name)
