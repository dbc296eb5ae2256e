"""Title and year of one line, in every way in which the line can be read, the likeliest first.

Where a title ends cannot be said of a line alone (``Kill Bill: Vol. 2``, ``Kill Bill: a bride takes revenge``), so a
line has readings, and the catalog decides between them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlpost_verifiers.catalog.citations import cited
from rlpost_verifiers.catalog.names import year_of
from rlpost_verifiers.catalog.sequels import continues
from rlpost_verifiers.catalog.wording import (
    behind_offer,
    is_genre,
    is_no_part,
    is_of_another,
    without_ordinal,
    without_tex,
)

Name = tuple[str, int | None]
"""A title and its year, None if the line has none."""

_DATE = r"(?P<year>\d{4})"
_WITH_YEAR = re.compile(rf"(?P<title>.*?\S)\s*[(\[]\s*{_DATE}\s*(?:[-–—/]\s*\d{{0,4}}\s*)?[)\]](?P<rest>.*)")
_YEAR = r"(?P<year>(?:1[89]|20)\d\d)"
_YEAR_AMONG = re.compile(
    rf"(?P<title>.*?\S)\s*[(\[](?:\s*(?:(?:the|original|orig\.|film|movie|from|released|version)\s+){{0,2}}"
    rf"{_YEAR}\s*(?:年|[-–—/,;:·|]|\s[^()\[\]\d])[^()\[\]]{{0,60}}"
    rf"|[^()\[\]]{{1,60}}?(?<!\d)(?P<behind>(?:1[89]|20)\d\d)\s*年?\s*)[)\]](?P<rest>.*)"
)
_YEAR_BETWEEN = re.compile(rf"(?P<title>.*?\S)(?:\s*\||\s+[-–—·])\s*{_YEAR}\s*(?:\||[-–—·](?=\s)|$)(?P<rest>.*)")
_COMMA_YEAR = re.compile(r"(?P<title>.*?\S)\s*(?:[,–—-]|\.{2,}|…|\t)\s*(?P<year>(?:1[89]|2[01])\d\d)\s*[.;,:]?\s*$")
_BARE_YEAR = re.compile(rf"(?P<title>.*\S)\s+{_YEAR}$")
_YEAR_BEHIND = re.compile(rf"[\s*_,:–—-]*[(\[]?\s*{_YEAR}(?!\d)")
_YEAR_BEFORE = re.compile(r"[(\[]?\s*(?P<year>(?:1[89]|20)\d\d)\s*(?:[)\]]\s*[-–—:.]?|[-–—:|])\s*(?P<title>\S.*)")
_POSSESSIVE = re.compile(r"(?:[^\W\d_a-z][\w.-]*\s+){0,3}[^\W\d_a-z][\w.-]*['’]s?\s+(?=\S)")
_WRAPPING = (
    *(("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"), ('"', '"'), ("'", "'")),
    *(("“", "”"), ("‘", "’"), ("«", "»"), ("„", "“"), ("[", "]"), ("《", "》"), ("「", "」"), ("『", "』")),
)
_CLOSING = frozenset(right[-1] for _, right in _WRAPPING)
_LEAD = re.compile(
    r"(?P<mark>\*{1,3}|_{1,3}|`|\")(?=\S)(?P<one>.+?)(?<=\S)(?P=mark)(?![^\W_])|“(?P<a>[^”]+)”|«(?P<b>[^»]+)»"
    r"|„(?P<c>[^“”]+)[“”]|《(?P<d>[^》]+)》|「(?P<e>[^」]+)」|『(?P<f>[^』]+)』|‘(?P<g>[^’]+)’(?!\w)|'(?P<h>[^']+)'(?!\w)"
)
_KIND = (
    r"(?:(?:movie|film|book|game|product|item|song|album|show|series|bonus|top|final|alternative|extra|wildcard|my)\s+)?"
    r"(?:title|titel|título|titulo|titre|titolo|название|片名|标题|書名|书名|电影|作品|タイトル|movie|film|pelicula|película"
    r"|book|livre|libro|buch|game|juego|spiel|item|product|produkt|name|pick|recommendation|suggestion|choice|option"
    r"|entry|mention|rank|number|no\.?|nr\.?|№|show|series|album|song|bonus)"
)
_LABEL = re.compile(
    rf"[\s*_]*(?:{_KIND}[\s*_]*[:：]|{_KIND}\s*#?\s*\d{{1,3}}[\s*_]*[:：.)–—-])[\s*_]*(?=\S)", re.IGNORECASE
)
_LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\((?:https?:|www\.|/|#|\?|asin:)(?:[^()]|\([^()]*\))*\)")
_INLINE_TAG = re.compile(r"</?(?:b|strong|i|em|u|a|span|sup|small|cite|mark|code)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][\w-]*(?:\s[^<>]*)?/?>")
_FOOTNOTE = re.compile(r"(?:\s*\[\^?\d{1,2}\])+\s*$")
_CODE = r"(?:(?:ISBN|ASIN|SKU|EAN|UPC|ID|item|arXiv|DOI|tt)(?:-1[03])?\s*(?:no\.?|number|#)?[:：#\s]*)?"
_CODES = r"(?<!\w)(?:B0[0-9A-Z]{8}|97[89][-\d ]{10,14}|\d{9}[\dXx]|\d{12,13}|\d{4}\.\d{4,5}(?:v\d+)?|tt\d{7,8})(?!\w)"
_CODE_BEHIND = re.compile(rf"\s*(?:[-–—,|/]\s*)?[(\[]?\s*{_CODE}{_CODES}\s*[)\]]?\s*$")
_CODE_BEFORE = re.compile(rf"[(\[]?\s*{_CODE}{_CODES}\s*[)\]]?\s*[-–—,:|/]?\s*(?=\S)")
_BRACKET_BEHIND = re.compile(r"(?P<title>.*\S)\s*[(\[](?P<inside>[^()\[\]]+)[)\]]\W*$")
_CUT = re.compile(r"\s+[-–—|→]+\s*|\s*[–—]+\s*|\s*[:：;|]\s+|：|,\s+|\.\s+|\s+(?=\()")
_NEXT_CUT = re.compile(r"\s+[-–—|]\s+|[:：]\s")
_ARROW = re.compile(r".*\s(?:→|➡️?|⇒|->|=>)\s+(?=\S)")
_BY = re.compile(r"\s+(?:(?:directed|written|developed|published|created|made)\s+)?(?:by|from|dir\.)\s+(?=[^\W\d_a-z])")
_BY_IN_SMALL = re.compile(r"\s+by\s+(?:[\w.’'-]+\s+){0,3}[\w.’'-]+$")
_NAME = re.compile(r"(?:[^\W\d_a-z][\w’'-]*\.?\s+){0,3}[^\W\d_a-z][\w’'-]+$")
_INITIALS = re.compile(r"(?:^|\s)[^\W\d_a-z]\.\s*")
_NO_NAME = frozenset(("The", "A", "An", "Part", "Vol", "Volume", "Chapter", "Episode", "Season", "Edition"))
_AUTHOR_QUOTED = re.compile(
    r"(?:[^\W\d_a-z][\w.’'-]*\s+){0,3}[^\W\d_a-z][\w.’'-]*\s*[,:–—-]\s*[\"“«*_]{1,3}([^\"”»*_]+)[\"”»*_]{1,3}$"
)
_SMALL = frozenset(
    (
        *("a", "an", "and", "as", "at", "by", "da", "das", "de", "del", "der", "die", "du", "el", "en", "et", "für"),
        *("for", "from", "i", "il", "in", "into", "is", "la", "las", "le", "les", "lo", "los", "no", "of", "on", "or"),
        *("the", "to", "und", "vs", "von", "with", "y"),
    )
)
_CASELESS = re.compile("[\u0590-\u08ff\u0900-\u0dff\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_FULLWIDTH = str.maketrans({**{0xFF10 + n: str(n) for n in range(10)}, "（": "(", "）": ")", "［": "[", "］": "]"})
_LONGEST_TITLE = 300
_MOST_BRACKETS = 3
_MOST_CUTS = 12
"""Places at which a line may be cut, from its end on."""
_LONGEST_LINE = 800
"""Characters of a line that are read; what follows is explanation."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The readings of a line.

    Attributes:
        names: titles and years, the likeliest first; empty for a line without a title.
        dated: whether a year in brackets, or behind comma or dash, dates the title.
        lead: whether the title stands in quotation marks, bold or italics at the start of the line.
        rest: what stands behind title and year.
    """

    names: tuple[Name, ...]
    dated: bool
    lead: bool
    rest: str


def parse_title(body: str) -> Name | tuple[None, None]:
    """Title and year of a name: the first of its readings.

    >>> parse_title('"The Thing" (1982)'), parse_title("Seven, 1995"), parse_title("300")
    (('The Thing', 1982), ('Seven', 1995), ('300', None))
    """
    names = read_title(body).names
    return names[0] if names else (None, None)


def read_title(body: str, authored: bool = False) -> Reading:
    """All readings of a line without its list mark.

    Args:
        body: the line.
        authored: whether a name of a person may follow the title behind a dash (``Dune - Frank Herbert``).

    >>> read_title("**Kill Bill: Vol. 2** - a bride takes revenge").names[1:]
    (('Kill Bill: Vol. 2', None),)
    """
    text = _unwrap(clean(body[:_LONGEST_LINE]))
    title, year, rest = _dated(text)
    names: list[Name] = []
    lead = _LEAD.match(title)
    for one in _titles(title, year is not None or authored):
        tidied = _tidy(one)
        if tidied is not None:
            names.append((tidied, year))
    if (inner := _inner(text, title)) is not None and year is not None:
        names.append((inner, year))
    if (work := cited(text)) is not None and (tidied := _tidy(work[0])) is not None:
        names.append((tidied, work[1]))
    if year is None:
        bold = _marked(lead) if lead and text[:2] == "**" else text.partition("**")[0] if text.count("**") % 2 else ""
        if bold and (found := _dated(bold))[1] is not None:  # **Alien - 1979:** a classic
            names = [(tidied, found[1]) for one in _titles(found[0], True) if (tidied := _tidy(one)) is not None]
            return Reading(tuple(dict.fromkeys(names)), True, True, text[text.find(bold) + len(bold) :].strip("*_ :"))
        if (first := _YEAR_BEFORE.match(text)) and (tidied := _tidy(first["title"])) is not None:
            names.append((tidied, year_of(first["year"])))
        for name in list(names)[:1]:
            bare = _BARE_YEAR.match(name[0])
            if bare and (found := year_of(bare["year"])) == int(bare["year"]):  # no 2049 for 1949
                names.insert(1, (bare["title"], found))
        if lead and (behind := _YEAR_BEHIND.match(title, lead.end())):
            found = year_of(behind["year"])
            names = [(one, found) for one, _ in names[1:]] or names
            return Reading(tuple(dict.fromkeys(names)), True, True, title[behind.end() :])
    rest = rest if year is not None else title[lead.end() :] if lead else ""
    return Reading(tuple(dict.fromkeys(names)), year is not None, lead is not None, rest)


def clean(body: str) -> str:
    """A line without links, images, HTML tags, entities and footnotes, full-width digits and brackets as ASCII."""
    text = _LINK.sub(lambda link: "" if link[0][0] == "!" else link[1], body)
    if "\\" in text:
        text = without_tex(text)
    if "<" in text:
        text = _TAG.sub(" ", _INLINE_TAG.sub("", text))
    if "&" in text:
        text = html.unescape(text)
    text = " ".join(_FOOTNOTE.sub("", text.translate(_FULLWIDTH).replace("\\", "")).split())
    return text


def describes(rest: str) -> bool:
    """Whether a text is a description, and not the second half of a title.

    >>> describes("a heist in dreams"), describes("Crime epic."), describes("A New Hope"), describes("Vol. 2")
    (True, True, False, False)
    """
    words = re.sub(r"(?<=\S)\s*[(\[][^()\[\]]*[)\]]", "", rest).strip(" *_\"'()[]").split()
    if not words:
        return False
    if _CASELESS.search(rest):
        return len(rest.strip()) > 4
    if len(words) >= 2 and words[-1][-1] in ".!…" and continues(rest) is None and len("".join(words)) > 8:
        return True
    content = [word for word in words[1:] if word[:1].islower() and word.strip(".,;:") not in _SMALL]
    short = len(words) == 2 and words[0] in _SMALL
    return (len(words) >= 2 and words[0][:1].islower() and not short) or len(content) >= 2


def ends_with_author(text: str) -> bool:
    """Whether a text ends with ``by`` and a person's name, and begins as a title does.

    >>> ends_with_author("Educated: A Memoir by Tara Westover"), ends_with_author("it was made by Ridley Scott")
    (True, False)
    """
    found = list(_BY.finditer(text))
    return bool(found) and not text[:1].islower() and _NAME.match(text, found[-1].end()) is not None


def begins_with_code(text: str) -> bool:
    """Whether an identifier stands before a title: an ISBN, an ASIN, an arXiv or IMDb id."""
    return _CODE_BEFORE.match(text) is not None


def without_label(text: str) -> str:
    """A text without a label that a title follows (``Title:``, ``Movie 2:``)."""
    found = _LABEL.match(text)
    return text[found.end() :] if found else text


def _dated(text: str) -> tuple[str, int | None, str]:
    """Title part, year and rest; the first year in brackets counts, then one behind a comma or dash at the end."""
    for pattern in (_WITH_YEAR, _YEAR_AMONG, _YEAR_BETWEEN, _COMMA_YEAR):
        found = pattern.match(text)
        if found is None:
            continue
        groups = found.groupdict()
        group = "year" if groups["year"] else "behind"
        if is_of_another(text, found.end("title"), found.start(group)):
            continue
        year = year_of(groups[group])
        if pattern is _YEAR_BETWEEN and str(year) != groups[group]:  # Blade Runner - 2049
            continue
        if year is not None:
            return found["title"], year, groups.get("rest") or ""
    return text, None, ""


def _inner(text: str, title: str) -> str | None:
    """The title in brackets with the year, behind the same in another language (``기생충 (Parasite, 2019)``)."""
    found = re.match(r"\s*[(\[]\s*([^()\[\]]{1,60}?)\s*[,，、/]\s*(?:1[89]|20)\d\d", text[len(title) :])
    return _tidy(found[1]) if found and text.startswith(title) else None


def _titles(text: str, dated: bool) -> Iterator[str]:
    """The titles that a text may begin with, the whole text first."""
    yield text
    plain = without_label(text)
    if plain != text:
        yield plain
    if (behind := without_ordinal(plain)) is not None:
        yield behind
    lead = _LEAD.match(plain)
    if lead:
        yield _marked(lead)
    for found in (_CODE_BEHIND.search(plain), _CODE_BEFORE.match(plain)):
        if found:
            plain = plain[: found.start()] or plain[found.end() :]
            yield plain
    rest = plain
    for _ in range(_MOST_BRACKETS):
        bracket = _BRACKET_BEHIND.match(rest)
        if bracket is None or continues(bracket["inside"]):
            break
        yield bracket["title"]
        if dated:
            yield bracket["inside"]
        rest = bracket["title"]
    for cut in [*_CUT.finditer(plain)][::-1][:_MOST_CUTS]:
        before, after = plain[: cut.start()], plain[cut.end() :]
        if _may_cut(before, after, cut[0], dated):
            yield before
    yield from _behind(plain, dated, lead is not None)


def _marked(lead: re.Match[str]) -> str:
    """What stands in the marks at the start of a line."""
    return next(group for group in (lead["one"], *lead.groups()[2:]) if group)


def _behind(text: str, dated: bool, lead: bool) -> Iterator[str]:
    """The titles beside a person's name: before ``by …``, behind a label, an owner or an author."""
    if by := _BY.search(text) or (text.islower() and _BY_IN_SMALL.search(text)):
        yield text[: by.start()]
    if dated and (offered := behind_offer(text)) is not None:
        yield offered
    if dated and (arrow := _ARROW.search(text)):
        yield text[arrow.end() :]
    if len(sides := text.split(" / ")) == 2 and (dated or _CASELESS.search(text)):  # one title in two languages
        yield from sides
    if dated and ":" in text:
        yield text.partition(":")[2]
    if dated and (owner := _POSSESSIVE.match(text)):
        yield text[owner.end() :]
    if not lead and (quoted := _AUTHOR_QUOTED.match(text)):
        yield quoted[1]


def _may_cut(before: str, after: str, cut: str, dated: bool) -> bool:
    """Whether a title may end before a dash, colon, comma, full stop or bracket."""
    if not before.strip() or (part := continues(after)) is True or (cut.strip() == "." and after[:1].islower()):
        return False
    if part is False or before.rstrip()[-2:] == "**" or after[:1] == "(" or is_no_part(after):
        return True
    if (
        cut.strip() in ("", ",", ".")
        and not (dated and cut.strip() == "," and _NAME.match(after))
        and not (after[:1].islower() or _CASELESS.search(after) or cut.strip() == ".")
    ):
        return False
    first = _NEXT_CUT.split(after, maxsplit=1)[0]  # a subtitle before the description belongs to the title
    if describes(first) or is_genre(first):
        return True
    named = _NAME.match(after) and not _NO_NAME & set(re.findall(r"\w+\b(?!\.)", after))
    return cut.strip()[:1] in tuple("-–—|,") and bool(named) and (dated or bool(_INITIALS.search(after)))


def _unwrap(text: str) -> str:
    """The text without marks that enclose all of it."""
    while text[-1:] in _CLOSING:
        for left, right in _WRAPPING:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : -len(right)]
                if left not in inner and right not in inner:
                    text = inner.strip()
                    break
        else:
            break
    return text


def _tidy(title: str) -> str | None:
    text = _unwrap(title.strip().strip("*_`").strip().rstrip(",;：:").strip())
    return text if text and len(text) <= _LONGEST_TITLE and any(c.isalnum() or c in "$!?" for c in text) else None
