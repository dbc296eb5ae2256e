"""The places of one line: several where each has its year, list numbers go on, or all titles are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rlpost_verifiers.catalog.marks import Known, Line, Numbering, read_line
from rlpost_verifiers.catalog.sentences import is_strong
from rlpost_verifiers.catalog.titles import Name

Kind = Literal["place", "junk", "text"]
_JOINT = re.compile(
    r"(?<=[)\]])[*_\"”]{0,3}\s*(?:[;,/|·•、+&]|\b(?:and|et|und|y|e|и)\b|[과와や和与與])\s*(?:(?:and|&)\s+)?(?=\S)|\s+(?=[(]?\d{1,2}[.)]\s+\S)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"《[^》]+》|「[^」]+」|『[^』]+』|«[^»]+»|„[^“”]+[“”]|“[^”]+”")
_BETWEEN = re.compile(r"[\s、,，·]*(?:和|与|與|及|以及|还有|還有|や|と|and|or|et|ou|und|oder|y|e|&|/)?[\s、,，]*")
_AND = re.compile(r"\s+(?:&|\+|and|plus|/)\s+")
_MOST_JOINED = 6
LONGEST_LINE = 20_000
"""Characters of a line that may hold several places."""


@dataclass(slots=True)
class Part:
    """A part of a text: a place of the list with its explanation, a line that is none but stands in the list
    (``junk``), or text. ``names`` are the readings of a place, ``name`` the likeliest.
    """

    kind: Kind
    start: int
    stop: int
    names: tuple[Name, ...] = ()
    name: Name | None = None


def pieces_of(text: str, line: Line, known: Known) -> list[Part]:
    """The places of a line: several where each has its year, or list numbers go on."""
    whole = Part("place", line.start, line.stop, line.reading.names, line.name)
    said = text[line.start : line.stop].rstrip()
    plainly = line.known is not None and not line.reading.rest and not line.reading.dated
    if line.mark == "cell" or plainly or len(said) > LONGEST_LINE:
        return [whole]
    if several := _several(text, line, known):
        return several
    cuts = [found for found in _JOINT.finditer(said) if found.start() >= len(said) - len(said.lstrip()) + 3]
    if not cuts or len(cuts) > 200:
        return [whole]
    begins = [0, *(cut.end() for cut in cuts)]
    ends = [*(cut.start() for cut in cuts), len(said)]
    before = Numbering(number=(line.number or 1) - 1)
    pieces = [
        read_line(text, line.start + first, line.start + stop, before, known)
        for first, stop in zip(begins, ends, strict=True)
    ]
    apart = all(
        one.reading.dated
        and (len(one.reading.rest.strip(" .*_")) < 1 or (one is pieces[-1] and all(other.known for other in pieces)))
        and is_strong(one)
        and (one.known is not None or not one.body.lstrip('*_"“ ')[:1].islower())
        for one in pieces
    )
    counted = [one.number for one in pieces] == [*range(line.number or 0, (line.number or 0) + len(pieces))]
    if not apart and not (line.number is not None and counted):
        return [whole]
    borders = [line.start, *(line.start + first for first in begins[1:]), line.stop]
    return [
        Part("place", first, stop, one.reading.names, one.name)
        for first, stop, one in zip(borders[:-1], borders[1:], pieces, strict=True)
    ]


def _several(text: str, line: Line, known: Known) -> list[Part]:
    """The places of a line without years whose titles are all known: ``Portal & Portal 2``, ``《A》和《B》``."""
    said = text[line.start : line.stop]
    quoted = list(_QUOTED.finditer(said))
    runs = 1
    while runs < len(quoted) and _BETWEEN.fullmatch(said[quoted[runs - 1].end() : quoted[runs].start()]):
        runs += 1
    begin = said.find(line.body) if line.body else -1
    if runs > 1:
        ends = [one.end() for one in quoted[:runs]]
        titles = [one[0][1:-1] for one in quoted[:runs]]
    elif line.known is None and begin >= 0 and 0 < len(joints := [*_AND.finditer(line.body)]) <= _MOST_JOINED:
        titles, ends = _covered(line.body, joints, known)
        ends = [begin + end for end in ends]
    else:
        return []
    if len(titles) < 2 or not all(known(title, None) for title in titles):
        return []
    borders = [line.start, *(line.start + end for end in ends[:-1]), line.stop]
    return [
        Part("place", first, stop, ((title, None),), (title, None))
        for (first, stop), title in zip(pairwise(borders), titles, strict=True)
    ]


def _covered(body: str, joints: Sequence[re.Match[str]], known: Known) -> tuple[list[str], list[int]]:
    """The fewest known titles that a line consists of, and where each ends; empty if it holds other words too."""
    begins, ends = [0, *(one.end() for one in joints)], [*(one.start() for one in joints), len(body.rstrip())]
    titles: list[str] = []
    stops: list[int] = []
    first = 0
    while first < len(begins):
        for last in range(len(ends) - 1, first - 1, -1):
            title = body[begins[first] : ends[last]].strip(' *_"“”')
            if known(title, None):
                titles.append(title)
                stops.append(ends[last])
                first = last + 1
                break
        else:
            return [], []
    return titles, stops
