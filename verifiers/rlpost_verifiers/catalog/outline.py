"""What each line of a text is: a place of the list, its explanation, a heading or other text.

A line is *strong* if it holds a title for certain: one that the catalog knows, or one with its year that is no
sentence. Other lines with a mark are places if enough lines with their mark are strong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Literal

from rlpost_verifiers.catalog.marks import Known, Line, Numbering, is_label, read_line, spans_of
from rlpost_verifiers.catalog.names import year_of
from rlpost_verifiers.catalog.pieces import LONGEST_LINE, Part, pieces_of
from rlpost_verifiers.catalog.sentences import ENOUGH, TALKS, common_shape, is_sentence, is_strong, shape, title_like
from rlpost_verifiers.catalog.tables import mark_tables
from rlpost_verifiers.catalog.titles import Reading, clean, read_title

_Role = Literal["place", "junk", "text", "detail", "space"]

_SEEN = re.compile(
    r"(?:(?:since|because|as|here(?:['’]s| is| are)|note that|leaving out|excluding|not listing|without)\s+)?"
    r"(?:what )?(?:(?:the |some )?(?:movies|films|books|games|items|ones|titles) )?"
    r"(?:(?:that |which )?you(?:['’]ve| have)?(?: already)? "
    r"(?:mentioned|said|told|seen|watched|read|played|rated|own)|already (?:seen|watched|read|played)|seen|watched"
    r"|your (?:favou?rites|history))\b"
    r"(?:(?!\b(?:here|recommend|suggest|try|instead|might|would|could)\b)[^.!?])*[:：]$",
    re.IGNORECASE,
)
_AVOIDED = re.compile(
    r"(?:(?:movies|films|books|games|titles|ones|what|things|some) (?:i['’]d |to )?)?"
    r"(?:avoid|skip|not recommended|don['’]t (?:watch|read|play|bother)|(?:i['’]d|would) (?:skip|avoid)|steer clear"
    r"|stay away|left out|excluded)\b[^.!?]{0,60}$",
    re.IGNORECASE,
)
_YEAR = re.compile(
    r"(?:year|released?|date|published|jahr|año|ano|année|anno|год|年份|上映\w{0,2}|公開年?|製作年|개봉\w{0,2}|연도)"
    r"(?!\w)[^\d\n]{0,40}((?:1[89]|20)\d\d)(?!\d)",
    re.IGNORECASE,
)
_PLAIN_START = re.compile(r"^[^\w]+")
_COUNTED = re.compile(r"(?<=\s)\(?(\d{1,2})[.)]\s+(?=\S)")
_MOST_UNCOUNTED = 2
"""Numbers from 1 on in a line that make it a list."""
_CLOSING = re.compile(
    r"(?:conclusion|summary|final (?:thoughts|note)|notes?|tips?|why|how|honou?rable mentions?|bonus|others?|overview"
    r"|intro)",
    re.IGNORECASE,
)
MOST_PLACES = 10_000
"""Lines that are read; a list that anybody asks for ends long before, and what follows is text."""
_FAR = 20
"""Lines below a heading among which the titles of its group begin."""


def outline(text: str, start: int, known: Known, yearless: str) -> list[Part]:
    """The parts of a text from ``start`` on, in order.

    Args:
        text: the answer.
        start: index of the first character that is read.
        known: whether a title is in the catalog.
        yearless: see `lists.ListSettings`.
    """
    before = Numbering(spaced=all(re.search(rf"(?m)^[ \t]*{number} +\S", text) for number in (1, 2)))
    spans = islice(_spans(text, start), MOST_PLACES)
    lines = [read_line(text, first, stop, before, known) for first, stop in spans]
    mark_tables(text, lines, known)
    _authors(lines, known)
    judge = _Judge(lines, yearless)
    roles = judge.roles()
    _without_seen(text, lines, roles)
    return list(_parts(text, lines, roles, known))


def _spans(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The lines of a text; one that counts its titles behind other words (``Top 2: 1) Up 2) Her``) is several."""
    for first, stop in spans_of(text, start):
        found = [*islice(_COUNTED.finditer(text, first, min(stop, first + LONGEST_LINE)), MOST_PLACES)]
        numbers = [int(one[1]) for one in found]
        if (
            len(found) < _MOST_UNCOUNTED
            or numbers != [*range(1, len(found) + 1)]
            or not text[first : found[0].start()].strip()
        ):
            yield first, stop
            continue
        yield from pairwise((first, *(one.start() for one in found), stop))


class _Judge:
    """Decides what the lines of one text are."""

    def __init__(self, lines: Sequence[Line], yearless: str):
        self.lines, self.yearless = lines, yearless
        self.strong = [is_strong(line) for line in lines]
        self.labels = [line.mark not in ("blank", "rule", "cell") and is_label(line) for line in lines]
        sections = _sections(lines)
        self.keys = [
            (line.mark, line.indent // 2 if line.mark == "bullet" else 0, section if line.mark == "bullet" else 0)
            for line, section in zip(lines, sections, strict=True)
        ]
        counted: Counter[tuple[str, int, int]] = Counter()
        good: Counter[tuple[str, int, int]] = Counter()
        titled: Counter[tuple[str, int, int]] = Counter()
        for line, key, strong, label in zip(lines, self.keys, self.strong, self.labels, strict=True):
            if line.mark in ("blank", "rule", "plain") or label:
                continue
            counted[key] += 1
            good[key] += strong
            titled[key] += strong or title_like(line)
        self.shapes = {key: common_shape(self.keys, self.strong, lines, key) for key in counted if key[0] == "bullet"}
        self.last_of = {line.mark: number for number, line in enumerate(lines)}
        any_strong = any(self.strong)
        plain = sum(one and line.mark == "plain" for one, line in zip(self.strong, lines, strict=True))
        self.marked = 0 < plain <= 2 * (sum(self.strong) - plain) or (any_strong and not plain)
        self.listed = {
            key
            for key, count in counted.items()
            if (titled[key] >= ENOUGH * count and (good[key] or (key[0] in ("number", "letter") and not any_strong)))
            or (key[0] == "bullet" and titled[key] == count and not any_strong)
        }
        self.dated = any(line.reading.dated and one for line, one in zip(lines, self.strong, strict=True))

    def roles(self) -> list[_Role]:
        """The role of each line."""
        found: list[_Role] = []
        item: Line | None = None
        gap = False
        self.remarks = False
        candidates = [self._may_be_place(number) for number in range(len(self.lines))]
        last = max((number for number, one in enumerate(candidates) if one), default=-1)
        for number, line in enumerate(self.lines):
            role: _Role
            if line.mark in ("blank", "rule"):
                gap, role = True, "space"
            elif candidates[number] and not (item is not None and self._is_child(number, item, gap)):
                role, item, gap = "place", line, False
            elif item is None:
                role = "text"
            else:
                role = self._below(number, item, gap, number < last)
                item = None if role == "text" else item
                self.remarks = self.remarks or (role == "detail" and line.mark == "bullet")
                gap = gap and role == "junk"
            found.append(role)
        _close(self.lines, found)
        return found

    def _may_be_place(self, number: int) -> bool:
        line, strong = self.lines[number], self.strong[number]
        if line.mark == "cell":
            return True
        if line.mark in ("blank", "rule") or self.labels[number] or not line.body.strip():
            return False
        if line.mark == "plain":
            return self._plain_place(line, strong)
        if strong:
            return True
        if line.body.strip("*_ ").endswith((":", "：", "?", "？")) or self._leads_group(number):
            return False
        if line.mark in ("heading", "bold", "quote", "emoji"):
            own = self.keys[number] in self.listed and title_like(line)
            return own and _CLOSING.match(clean(line.body).strip("*_ ")) is None
        own = line.mark != "bullet" or not is_sentence(line) or bool(shape(line) & self.shapes[self.keys[number]])
        return self.keys[number] in self.listed and own

    def _plain_place(self, line: Line, strong: bool) -> bool:
        if self.marked:
            ends = line.reading.rest.strip(" *_.") if line.known is not None else line.reading.rest.strip(" *_")
            return strong and line.reading.dated and not ends
        if self.yearless == "accept" and not strong:
            return line.name is not None and not is_sentence(line) and not line.body.rstrip("*_ ").endswith(":")
        return strong and (line.reading.dated or (line.known is not None and not self.dated))

    def _leads_group(self, number: int) -> bool:
        """Whether titles stand below this line, which holds none: it is the heading of a group."""
        line = self.lines[number]
        for place in range(number + 1, min(number + _FAR, len(self.lines))):
            other, strong = self.lines[place], self.strong[place]
            if other.mark == "blank":
                continue
            deeper = other.indent > line.indent + 1 or (line.mark in ("heading", "bold") and other.mark != line.mark)
            if not deeper or (other.mark == line.mark and other.indent <= line.indent):
                return False
            if strong and other.mark != "plain" and not TALKS.search(other.reading.rest):
                return True
            if other.mark == "plain":
                return False
        return False

    def _is_child(self, number: int, item: Line, gap: bool) -> bool:
        """Whether a line that may be a place stands below one as a remark."""
        line = self.lines[number]
        if line.mark == "cell":
            return False
        if line.indent > item.indent + 1 and item.mark not in ("plain", "cell"):
            return line.mark != item.mark or line.mark == "bullet"
        if line.mark not in ("bullet", "quote") or item.mark not in ("number", "letter", "heading", "bold") or gap:
            return False
        # bullets between numbers are remarks; bullets at the end go on with the list
        return not self.strong[number] or self.remarks or number < self.last_of[item.mark]

    def _below(self, number: int, item: Line, gap: bool, more: bool) -> _Role:
        """What a line is that follows a place and is none."""
        line = self.lines[number]
        if self.labels[number] and (not gap or more):
            return "detail"
        deeper = line.indent > item.indent + 1
        colon = line.body.rstrip("*_ ").endswith((":", "："))
        if line.mark == "heading" or (colon and not deeper) or (line.mark == "bold" and gap and not deeper):
            return "text"
        if not self.marked and line.mark == "plain" and not deeper:
            return "detail" if is_sentence(line) and (not gap or more) else "junk" if not is_sentence(line) else "text"
        if not gap or deeper:
            return "detail"
        return "detail" if more and line.mark in ("plain", "bullet", "quote", "emoji") else "text"


def _sections(lines: Sequence[Line]) -> list[int]:
    """A number for each line that grows where a group of bullets may end: at text, headings and numbered places."""
    found: list[int] = []
    section = 0
    for line in lines:
        breaks = line.mark in ("heading", "bold", "number", "letter") or (line.mark == "plain" and not line.indent)
        section += breaks and line.mark != "blank"
        found.append(section)
    return found


def _authors(lines: Sequence[Line], known: Known) -> None:
    """Read names of persons behind dashes as such, where most lines of the list have one and the titles are known."""
    again: list[tuple[Line, Reading]] = []
    listed = [line for line in lines if line.mark not in ("blank", "rule", "cell") and line.reading.names]
    for line in listed:
        if line.known is None and not line.reading.dated:
            reading = read_title(line.body, authored=True)
            if reading.names != line.reading.names:
                again.append((line, reading))
    if len(again) < 2 or len(again) * 2 < len(listed):
        return
    for line, reading in again:
        line.reading = reading
        line.known = next((name for name in reading.names if known(*name)), None)


def _close(lines: Sequence[Line], roles: list[_Role]) -> None:
    """Text below the last place explains it only where other places are explained so, or where it is indented."""
    places = [number for number, role in enumerate(roles) if role == "place"]
    if not places:
        return
    last = places[-1]
    explained = any(
        role == "detail" and lines[number].mark == "plain" and not lines[number].indent
        for number, role in enumerate(roles[:last])
    )
    apart = any(
        role == "detail" and lines[number].mark == "plain" and lines[number - 1].mark == "blank"
        for number, role in enumerate(roles[:last])
    )
    paragraph, closed = 0, False
    for number in range(last + 1, len(lines)):
        line = lines[number]
        if line.mark in ("blank", "rule"):
            paragraph += line.mark == "blank"
            continue
        if line.mark == "plain" and not line.indent:
            own = (explained and paragraph == 0) or (apart and paragraph == 1 and not closed)
            if not own and roles[number] == "detail" and len(places) > 1:
                roles[number] = "text"
            elif own and roles[number] == "text" and not line.body.rstrip().endswith(":"):
                roles[number] = "detail"
            closed = closed or roles[number] == "text"


def _without_seen(text: str, lines: Sequence[Line], roles: list[_Role]) -> None:
    """Places below words like ``You have already seen:`` or ``Avoid:`` are text, up to the next text."""
    seen = False
    for number, (line, role) in enumerate(zip(lines, roles, strict=True)):
        if role == "text":
            said = _PLAIN_START.sub("", clean(text[line.start : line.stop])).rstrip("*_ ")
            seen = _SEEN.match(said) is not None or _AVOIDED.match(said.rstrip(":")) is not None
        elif seen and role != "space":
            roles[number] = "text"


def _parts(text: str, lines: Sequence[Line], roles: Sequence[_Role], known: Known) -> Iterator[Part]:
    part: Part | None = None
    told = ""
    for line, role in zip(lines, roles, strict=True):
        if role in ("detail", "space") and part is not None:
            part.stop = line.stop
            told += text[line.start : line.stop] if role == "detail" else ""
            continue
        if part is not None:
            yield _with_year(part, told, known)
        told, part = "", None
        if role == "place":
            *whole, part = pieces_of(text, line, known)
            yield from whole
        elif role in ("junk", "text"):
            part = Part(role, line.start, line.stop, line.reading.names)
    if part is not None:
        yield _with_year(part, told, known)


def _with_year(part: Part, told: str, known: Known) -> Part:
    """A place without a year with that of a line below it (``Year: 1979``)."""
    if part.kind != "place" or not told or (part.name and part.name[1]) or not (found := _YEAR.search(told)):
        return part
    year = year_of(found[1])
    names = tuple((title, year) for title, _ in part.names)
    part.names = names
    part.name = next((name for name in names if known(*name)), names[0] if names else None)
    return part
