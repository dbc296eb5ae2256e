"""What stands before a title in a line: numbers, bullets, headings, emoji, and which of them a line has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from rlpost_verifiers.catalog.titles import Name, Reading, begins_with_code, clean, read_title
from rlpost_verifiers.catalog.wording import marked_within

Mark = Literal["number", "letter", "bullet", "heading", "bold", "quote", "emoji", "cell", "plain", "rule", "blank"]
Known = Callable[[str, "int | None"], bool]
"""Whether the catalog holds a title (with a year) as it is spelt."""

LARGEST_GAP = 5
"""A number counts as a list number if it differs from the previous one by at most this much."""

_LONGEST = 2000
"""Characters of a line that are read."""
_INDENT = re.compile(r"(?:[ \t\u3000]|>(?=\s|$))*")
_HEADING = re.compile(r"#{1,6}\s+")
_BULLET = re.compile(r"\s*(?:[-*•‣▪◦·–—+‐●○■□▶►➤➡→✓✔✅☑]\ufe0f?\s+|<li\b[^>]*>\s*)(?=\S)")
_CHECKBOX = re.compile(r"\[[ xX]\]\s+")
_OPEN = re.compile(r"(?:\*\*|__)(?=\s*[#(]?\s*\d{1,3}\s*(?:[.)\]:、．-]|\ufe0f?\u20e3))")
_STRONG_NUMBER = re.compile(
    r"\s*(\d{1,3})(?:\s?[-–]\s?\d{1,3})?(?:\\?[.)]{1,2}\s|\s*[、．]|\ufe0f?\u20e3)[\s:.-]*(?:\*\*|__)?\s*"
)
"""Forms in which hardly a title begins: such a number counts whatever came before."""
_NUMBER = re.compile(
    r"\s*(?:#\s*|[(\[])?(\d{1,3})\s*(?:\\?[.)\]](?!\d)|[:-](?=\s)|\s(?=\S))\s*(?:[:.)-]\s)?\s*(?:\*\*|__)?\s*(?=\S)"
)
_EMPTY_NUMBER = re.compile(r"[\s*_#(]*\d{1,3}\s*[.):、]?[\s*_]*$")
_LETTER = re.compile(r"\s*\(?([A-Za-z]|[ivxIVX]{1,5})[.)]\s+(?:\*\*|__)?\s*(?=\S)")
_CIRCLED = {**{chr(0x2460 + n): n + 1 for n in range(20)}, **{chr(0x2776 + n): n + 1 for n in range(10)}, "🔟": 10}
_RULE = re.compile(
    r"(?:[-*_=~—–\s]{3,}|`{3,}.*|~{3,}.*|\[\^?[\w-]{1,20}\]:\s.*|<?https?://\S+|(?:</?[a-zA-Z][\w-]*(?:\s[^<>]*)?>\s*)+|[\]\[{},\"]+)$"
)
_ITEM_TAG = re.compile(
    r"\s*(?:<(?:item|movie|film|book|game|product|recommendation|rec|suggestion|entry|option|result|li|title|name)\b"
    r"[^<>]*>\s*)+(?=[^\s<])"
)
_DATA_HEAD = re.compile(r"\s*\{\s*\"\w+\"\s*:\s*\"(?=\S)")
_DOTTED = re.compile(r"(\d{1,2})(?:\.\d{1,2})+\.?\s+(?=\S)")
_ROMAN = {"i": 1, "v": 5, "x": 10}
_FULLWIDTH = str.maketrans({0xFF10 + n: str(n) for n in range(10)})


_BREAK = re.compile(
    r"\n|<br\s*/?>[ \t]*\n?|(?:\\r)?\\n(?![a-z])|<(?:li|item|movie|film|book|game|product|recommendation)\b",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Line:
    """A line of a text, read on its own.

    Attributes:
        start: index of its first character.
        stop: one past its last character, the line break included.
        mark: what it begins with.
        indent: columns before the mark.
        body: text behind the mark.
        reading: the titles that the body may be.
        known: the first of them that is in the catalog, None if none is.
        number: the list number.
        whole: whether a year or a known title ends the line, with nothing behind it.
    """

    start: int
    stop: int
    mark: Mark
    indent: int = 0
    body: str = ""
    reading: Reading = field(default_factory=lambda: Reading((), False, False, ""))
    known: Name | None = None
    number: int | None = None

    @property
    def name(self) -> Name | None:
        """The title and year that the line most likely is."""
        return self.known or (self.reading.names[0] if self.reading.names else None)


@dataclass(slots=True)
class Numbering:
    """The last list number and the last letter of a text, by which the next ones are recognised."""

    number: int = 0
    letter: int = 0
    roman: int = 0
    spaced: bool = False
    """Whether numbers without a full stop or bracket count (``1 Alien``)."""


def spans_of(text: str, start: int) -> Iterator[tuple[int, int]]:
    r"""Half-open character span of every line from ``start`` on, its line break included; ``<li>``, ``<br>`` and line
    breaks written as ``\n`` begin lines too.
    """
    for found in _BREAK.finditer(text, start):
        stop = found.end() if found[0][0] != "<" or found[0][:3].lower() == "<br" else found.start()
        if stop > start:
            yield start, stop
            start = stop
    if start < len(text):
        yield start, len(text)


def read_line(text: str, start: int, stop: int, before: Numbering, known: Known) -> Line:
    """One line of a text; ``before`` is brought up to date."""
    said = text[start : min(stop, start + _LONGEST)].rstrip()
    if not said:
        return Line(start, stop, "blank")
    if _RULE.match(said.strip()):
        return Line(start, stop, "rule")
    lead = _INDENT.match(said)
    indent = len(lead[0].expandtabs(4)) if lead else 0
    rest, mark = said[lead.end() if lead else 0 :], "plain"
    if data := _DATA_HEAD.match(rest):
        rest = rest[data.end() :]
    if heading := _HEADING.match(rest):
        rest, mark = rest[heading.end() :], "heading"
    if bullet := _BULLET.match(rest):
        rest, mark = rest[bullet.end() :], "bullet"
        if box := _CHECKBOX.match(rest):
            rest = rest[box.end() :]
    if tag := _ITEM_TAG.match(rest):
        rest, mark = rest[tag.end() :], "bullet"
    if (bare := _without_emoji(rest)) != rest:
        rest, mark = bare, "emoji" if mark == "plain" else mark
    body, number, letter = _without_number(rest, before, known)
    if number is not None:
        rest, mark = body, "letter" if letter else "number"
        rest = _without_emoji(rest)
    line = Line(start, stop, "plain", indent, rest, number=number)
    line.reading = read_title(rest)
    line.known = next((name for name in line.reading.names if known(*name)), None)
    if line.known is None and mark != "plain" and (marked := marked_within(clean(rest))) is not None:
        within = read_title(marked)
        line.known = next((name for name in within.names if known(*name)), None)
        line.reading = within if line.known else line.reading
    line.mark = mark if mark != "plain" else _inner_mark(rest, line.reading)  # pyright: ignore[reportAttributeAccessIssue]
    return line


def _inner_mark(rest: str, reading: Reading) -> Mark:
    if rest[:2] in ("**", "__") or rest[:3] == "<b>" or rest[:8] == "<strong>":
        return "bold"
    return "quote" if reading.lead or rest[:1] == "[" or begins_with_code(rest) else "plain"


def _without_emoji(text: str) -> str:
    """The text without symbols at its start; numbers in circles or keycaps stay."""
    place = 0
    while place < len(text) and text[place] not in _CIRCLED:
        kind = unicodedata.category(text[place])
        if kind == "So" or (place and (kind in ("Mn", "Sk", "Cf") or text[place].isspace())):
            place += 1
        else:
            break
    return text[place:] or text


def _without_number(rest: str, before: Numbering, known: Known) -> tuple[str, int | None, bool]:
    """The text without its list number, the number, and whether it is a letter; ``300: …`` is a title unless 295 to
    299 came before.
    """
    if rest[:1] in _CIRCLED:
        before.number = _CIRCLED[rest[0]]
        return rest[1:].lstrip(" \ufe0f.:)-"), before.number, False
    plain = rest.translate(_FULLWIDTH)
    opened = _OPEN.match(plain)
    if opened:  # **1. Title** is a number before a bold title
        mark = opened[0]
        plain = plain[2:]
        close = plain.find(mark)
        inside = _EMPTY_NUMBER.match(plain[:close]) if close >= 0 else None
        plain = plain if inside else f"{plain[:close]}{mark}{plain[close + 2 :]}" if close >= 0 else plain
    if _EMPTY_NUMBER.match(plain) and not re.match(r"\s*\d{1,3}$", plain):
        return "", before.number, False
    found = _STRONG_NUMBER.match(plain)
    if found is None and (found := _DOTTED.match(plain)) and _is_known(rest, known):
        found = None
    if found is None:
        found = _NUMBER.match(plain)
        near = found is not None and (int(found[1]) == 1 or 0 < abs(int(found[1]) - before.number) <= LARGEST_GAP)
        spaced = (
            found is not None
            and found[0].strip().isdigit()
            and not (before.spaced and int(found[1]) == before.number + 1)
        )
        if not near or spaced or (not opened and _is_known(rest, known)):
            found = None
    if found:
        before.number = int(found[1])
        body = plain[found.end() :] if plain == rest or opened else rest[found.end() :]
        return (f"**{body}" if opened and "**" in body and body.count("**") % 2 else body), before.number, False
    return _without_letter(rest, before, known)


def _without_letter(rest: str, before: Numbering, known: Known) -> tuple[str, int | None, bool]:
    found = _LETTER.match(rest)
    if found is None or (_is_known(rest, known) and not _is_known(rest[found.end() :], known)):
        return rest, None, False
    said = found[1].lower()
    roman = _value(said)
    if (
        roman is not None
        and roman == before.roman + 1
        and not (len(said) == 1 and ord(said) - 96 == before.letter + 1 > 1)
    ):
        before.roman = roman
        return rest[found.end() :], roman, True
    if len(said) == 1 and ord(said) - 96 in (1, before.letter + 1):
        before.letter = ord(said) - 96
        return rest[found.end() :], before.letter, True
    return rest, None, False


def _is_known(text: str, known: Known) -> bool:
    return any(known(*name) for name in read_title(text).names)


def _value(roman: str) -> int | None:
    """Value of a numeral of i, v and x; None if it is none."""
    values = [_ROMAN.get(letter) for letter in roman]
    if None in values:
        return None
    pairs = zip(values, [*values[1:], 0], strict=True)
    return sum(-a if a < b else a for a, b in pairs if a is not None and b is not None)


def is_label(line: Line) -> bool:
    """Whether a line tells something about an item: ``Genre: …``, ``**Why:** …``, ``Why you will like it: …``."""
    if line.known is not None or line.mark in ("number", "letter", "cell", "blank", "rule"):
        return False
    return bool(_DETAIL.match(clean(line.body)))


_DETAIL = re.compile(
    r"[*_\s]*(?:"
    r"(?:(?:release|publication|running|play|playing|key|main|similar|more|also|great|good|best|perfect|ideal)\s+)?"
    r"(?:years?|released?|dates?|genres?|directors?|directed by|casts?|starring|stars|writers?|reasons?|ratings?"
    r"|runtime|length|duration|plot|synopsis|summary|description|notes?|tips?|platforms?|prices?|pros|cons|players|time"
    r"|authors?|artists?|publishers?|developers?|pages|available(?: on)?|availability|streaming(?: on)?|themes?"
    r"|mood|tone"
    r"|similar(?: to)?|for|vibes?|language|country|features?|highlights?|imdb|scores?|age|isbn|asin|brand|models?|link"
    r"|url|source|about|hook|warning|match|fits?|connection|category|type|style|format|setting|overview|comment"
    r"|explanation)(?:\s+(?:rating|score|of|to|by|for|on|members?|points?|level|range))?"
    r"|a[ñn]o|g[ée]nero|direct(?:ora?|eur|ed)|dirigid[ao] por|sinopsis|por qu[ée]|duraci[óo]n|reparto|calificaci[óo]n"
    r"|autora?|ann[ée]e|r[ée]alis(?:ateur|atrice|[ée] par)|pourquoi|dur[ée]e|avec|auteure?|prix|sortie"
    r"|jahr|regie|regisseur(?:in)?|handlung|inhalt|warum|dauer|besetzung|bewertung|autor(?:in)?|erscheinungsjahr|preis"
    r"|anno|regia|regista|trama|perch[ée]|durata|voto|autore|ano|diretora?|dire[çc][ãa]o|sinopse|elenco|pre[çc]o|precio|prezzo"
    r"|год|жанр|режисс[её]р|сюжет|почему|в ролях|рейтинг|автор|описание"
    r"|导演|導演|主演|年份|上映\w{0,2}|类型|類型|简介|簡介|剧情|劇情|推荐理由|推薦理由|理由|评分|評分|时长|時長|作者|价格|特点|看点|亮点"
    r"|監督|出演|公開年?|製作年|ジャンル|あらすじ|概要|おすすめポイント|おすすめの理由|評価|著者|見どころ"
    r"|감독|출연|주연|개봉(?:연도|일)?|연도|장르|줄거리|추천\s?이유|이유|평점|저자"
    r"|(?:why|what|how|where|who|because|if|(?:best|perfect|great|ideal|good) for)\b[^:：]{0,60})[*_\s]*[:：]",
    re.IGNORECASE,
)
