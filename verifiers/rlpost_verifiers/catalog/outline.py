"""What each line of a text is: a place of the list, its explanation, a heading or other text.

A line is *strong* if it holds a title for certain: one that the catalog knows, or one with its year that is no
sentence. Other lines with a mark are places if enough lines with their mark are strong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

from rlpost_verifiers.catalog.marks import Known, Line, Numbering, is_label, read_line, spans_of
from rlpost_verifiers.catalog.names import year_of
from rlpost_verifiers.catalog.tables import mark_tables
from rlpost_verifiers.catalog.titles import (
    Name,
    Reading,
    clean,
    describes,
    ends_with_author,
    read_title,
    without_label,
)
from rlpost_verifiers.catalog.wording import behind_offer

Kind = Literal["place", "junk", "text"]
_Role = Literal["place", "junk", "text", "detail", "space"]

_SAYS = re.compile(
    r"(?:for (?:fans|lovers|those|people|a|the)\b.* (?:of|who|like)|for (?:fans|lovers) of|if you|because you|since you"
    r"|similar to|more like|inspired by|based on|given your|as you|like your)\b",
    re.IGNORECASE,
)
_TALKS = re.compile(r"\b(?:you|your|i|i['’]d|i['’]ll|i['’]ve|we|these|here|this|let|which|was|is|are)\b", re.IGNORECASE)
_SEEN = re.compile(
    r"(?:(?:since|because|as|here(?:['’]s| is| are)|note that|leaving out|excluding|not listing|without)\s+)?"
    r"(?:what )?(?:(?:the |some )?(?:movies|films|books|games|items|ones|titles) )?"
    r"(?:(?:that |which )?you(?:['’]ve| have)?(?: already)? "
    r"(?:mentioned|said|told|seen|watched|read|played|rated|own)|already (?:seen|watched|read|played)|seen|watched"
    r"|your (?:favou?rites|history))\b(?:(?!\b(?:here|recommend|suggest|try|instead|might|would|could)\b)[^.!?])*[:：]$",
    re.IGNORECASE,
)
_AVOIDED = re.compile(
    r"(?:(?:movies|films|books|games|titles|ones|what|things|some) (?:i['’]d |to )?)?"
    r"(?:avoid|skip|not recommended|don['’]t (?:watch|read|play|bother)|(?:i['’]d|would) (?:skip|avoid)|steer clear|stay away"
    r"|left out|excluded)\b[^.!?]{0,60}$",
    re.IGNORECASE,
)
_OFFERS = re.compile(
    r"(?:i['’]d|i['’]ll|i (?:would|can|think|suggest|recommend)|you (?:might|may|could|should|can|['’]ll|will|would)"
    r"|check out|how about|why not|(?:you )?(?:also )?consider|have you (?:seen|tried|read|played)|perhaps|maybe"
    r"|there(?:['’]s| is))\b",
    re.IGNORECASE,
)
_YEAR = re.compile(
    r"(?:year|released?|date|published|jahr|año|ano|année|anno|год|年份|上映\w{0,2}|公開年?|製作年|개봉\w{0,2}|연도)(?!\w)[^\d\n]{0,40}((?:1[89]|20)\d\d)(?!\d)",
    re.IGNORECASE,
)
_PLAIN_START = re.compile(r"^[^\w]+")
_COUNTED = re.compile(r"(?<=\s)\(?(\d{1,2})[.)]\s+(?=\S)")
_MOST_UNCOUNTED = 2
"""Numbers from 1 on in a line that make it a list."""
_SHAPES = (": ", " - ", " – ", " — ", " by ", " (")
_YEARS = re.compile(r"[(\[（][^()\[\]（）]{0,40}(?:1[89]|20)\d\d\s*年?[)\]）]")
_CLOSING = re.compile(
    r"(?:conclusion|summary|final (?:thoughts|note)|notes?|tips?|why|how|honou?rable mentions?|bonus|others?|overview"
    r"|intro)",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r"(?<=[)\]])[*_\"”]{0,3}\s*(?:[;,/|·•、+&]|\b(?:and|et|und|y|e|и)\b|[과와や和与與])\s*(?:(?:and|&)\s+)?(?=\S)|\s+(?=[(]?\d{1,2}[.)]\s+\S)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"《[^》]+》|「[^」]+」|『[^』]+』|«[^»]+»|„[^“”]+[“”]|“[^”]+”")
_BETWEEN = re.compile(r"[\s、,，·]*(?:和|与|與|及|以及|还有|還有|や|と|and|or|et|ou|und|oder|y|e|&|/)?[\s、,，]*")
_AND = re.compile(r"\s+(?:&|\+|and|plus|/)\s+")
_MOST_JOINED = 6
MOST_PLACES = 10_000
"""Lines that are read; a list that anybody asks for ends long before, and what follows is text."""
_LONGEST_LINE = 20_000
"""Characters of a line that may hold several places."""
_SENTENCE_WORDS = 6
_TITLE_WORDS = 14
_FAR = 20
"""Lines below a heading among which the titles of its group begin."""
_ENOUGH = 0.5
"""Share of the lines with a mark that must hold titles for the others to count as titles too."""


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
        found = [*islice(_COUNTED.finditer(text, first, min(stop, first + _LONGEST_LINE)), MOST_PLACES)]
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
            titled[key] += strong or _title_like(line)
        self.shapes = {key: _common_shape(self.keys, self.strong, lines, key) for key in counted if key[0] == "bullet"}
        self.last_of = {line.mark: number for number, line in enumerate(lines)}
        any_strong = any(self.strong)
        plain = sum(one and line.mark == "plain" for one, line in zip(self.strong, lines, strict=True))
        self.marked = 0 < plain <= 2 * (sum(self.strong) - plain) or (any_strong and not plain)
        self.listed = {
            key
            for key, count in counted.items()
            if (titled[key] >= _ENOUGH * count and (good[key] or (key[0] in ("number", "letter") and not any_strong)))
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
            own = self.keys[number] in self.listed and _title_like(line)
            return own and _CLOSING.match(clean(line.body).strip("*_ ")) is None
        own = line.mark != "bullet" or not _is_sentence(line) or bool(_shape(line) & self.shapes[self.keys[number]])
        return self.keys[number] in self.listed and own

    def _plain_place(self, line: Line, strong: bool) -> bool:
        if self.marked:
            ends = line.reading.rest.strip(" *_.") if line.known is not None else line.reading.rest.strip(" *_")
            return strong and line.reading.dated and not ends
        if self.yearless == "accept" and not strong:
            return line.name is not None and not _is_sentence(line) and not line.body.rstrip("*_ ").endswith(":")
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
            if strong and other.mark != "plain" and not _TALKS.search(other.reading.rest):
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
            return (
                "detail" if _is_sentence(line) and (not gap or more) else "junk" if not _is_sentence(line) else "text"
            )
        if not gap or deeper:
            return "detail"
        return "detail" if more and line.mark in ("plain", "bullet", "quote", "emoji") else "text"


def is_strong(line: Line) -> bool:
    """Whether a line holds a title for certain."""
    if line.mark in ("blank", "rule") or not line.reading.names:
        return False
    if line.mark == "cell":
        return True
    full = line.reading.names[0]
    if line.known == full:
        return True
    if line.mark == "plain" and (_tells_of_several(clean(line.body)) or behind_offer(clean(line.body)) is not None):
        return False  # prose
    if _SAYS.match(clean(line.body).strip("*_ ")):
        return False
    if line.known is not None and line.mark != "plain":
        return True
    plain = clean(line.body)
    if (labelled := without_label(plain)) != plain:
        return not (_SAYS.match(labelled) or _OFFERS.match(labelled))
    if line.known is not None:
        return line.reading.dated or not _TALKS.search(full[0]) or line.reading.lead
    return line.reading.dated and not _is_sentence(line)


def _tells_of_several(said: str) -> bool:
    """Whether a line is a sentence with several years: prose that names titles."""
    return len(_YEARS.findall(said)) > 1 and said[-1] in ".!?:。！？" and len(said.split()) > _SENTENCE_WORDS


def _is_sentence(line: Line) -> bool:
    """Whether a line without a known title is a sentence, and no title."""
    said = clean(line.body).strip("*_ ")
    words = said.split()
    if line.reading.dated and line.name is not None:
        title = line.name[0].split()
        if (len(title) >= 4 and _TALKS.search(line.name[0])) or _OFFERS.match(said):
            return True
        rest = line.reading.rest
        goes_on = re.match(r",?\s+(?:[a-z]|and\b)", rest) is not None and said[-1] in ".!?:。"
        return line.mark == "plain" and (goes_on or (len(title) >= 5 and said[-1] in ".!?:。！？" and len(rest) < 3))
    if not words or ends_with_author(said):
        return False
    if said[-1] in ".!?…。！？" and (len(words) >= 3 or (len(said) > 12 and not said.isascii())):
        return True
    return (len(words) >= _SENTENCE_WORDS and describes(said)) or len(words) > _TITLE_WORDS


def _shape(line: Line) -> set[str]:
    """How a line writes its title: what tells that the next line of the same shape is one too."""
    said = clean(line.body).strip("*_ ")
    found = {"dated"} if line.reading.dated else set[str]()
    found |= {"lead"} if line.reading.lead else set()
    found |= {"!"} if said.endswith("!") and len(said.split()) <= _SENTENCE_WORDS else set()
    for cut in _SHAPES:
        head, behind, _ = said.partition(cut)
        if behind and len(head.split()) <= _SENTENCE_WORDS + 2 and not _TALKS.search(head):
            found.add(cut)
    return found


def _common_shape(
    keys: Sequence[tuple[str, int, int]], strong: Sequence[bool], lines: Sequence[Line], key: tuple[str, int, int]
) -> set[str]:
    """What most of the certain titles with one mark have in common."""
    shapes = [_shape(line) for own, sure, line in zip(keys, strong, lines, strict=True) if own == key and sure]
    counted = Counter(one for shape in shapes for one in shape)
    return {one for one, count in counted.items() if count > _ENOUGH * len(shapes)}


def _title_like(line: Line) -> bool:
    """Whether a line without a known title and a year looks like a title."""
    name = min((name for name, _ in line.reading.names), key=len, default="")
    words = name.split()
    if not words or len(words) > _TITLE_WORDS or name[-1] in "?？:：" or describes(name):
        return False
    return not (name[-1] in ".。" and len(words) > 3)


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
            *whole, part = _pieces(text, line, known)
            yield from whole
        elif role in ("junk", "text"):
            part = Part(role, line.start, line.stop, line.reading.names)
    if part is not None:
        yield _with_year(part, told, known)


def _pieces(text: str, line: Line, known: Known) -> list[Part]:
    """The places of a line: several where each has its year, or list numbers go on."""
    whole = Part("place", line.start, line.stop, line.reading.names, line.name)
    said = text[line.start : line.stop].rstrip()
    plainly = line.known is not None and not line.reading.rest and not line.reading.dated
    if line.mark == "cell" or plainly or len(said) > _LONGEST_LINE:
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
    quoted = [one for one in _QUOTED.finditer(said)]
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


def _with_year(part: Part, told: str, known: Known) -> Part:
    """A place without a year with that of a line below it (``Year: 1979``)."""
    if part.kind != "place" or not told or (part.name and part.name[1]) or not (found := _YEAR.search(told)):
        return part
    year = year_of(found[1])
    names = tuple((title, year) for title, _ in part.names)
    part.names = names
    part.name = next((name for name in names if known(*name)), names[0] if names else None)
    return part
