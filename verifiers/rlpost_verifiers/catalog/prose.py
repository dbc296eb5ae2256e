"""Titles in running prose: named with their year, set off by bold type or quotation marks, or known to the catalog."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from rlpost_verifiers.catalog.marks import Known
from rlpost_verifiers.catalog.pieces import Part
from rlpost_verifiers.catalog.titles import Name, describes, read_title

_DATED = re.compile(r"[(\[]\s*(?:[^()\[\]\d]{1,40}[,\s])?((?:1[89]|20)\d\d)[^()\[\]]{0,40}[)\]]")
_MARKED = re.compile(
    r"(?P<m>\*{1,3}|__|(?<!\w)_|\")(?=\S)(?P<a>[^*\n\"]{1,120}?)(?<=\S)(?P=m)|“(?P<b>[^”\n]{1,120})”|«(?P<c>[^»\n]{1,120})»"
    r"|《(?P<d>[^》\n]{1,120})》|『(?P<e>[^』\n]{1,120})』|„(?P<f>[^“”\n]{1,120})[“”]|「(?P<h>[^」\n]{1,120})」|〈(?P<i>[^〉\n]{1,120})〉|‘(?P<j>[^‘’\n]{1,120})’|\[(?P<g>[^\]\n]{1,120})\]\((?=http)"
)
_RUN = re.compile(
    r"[^\W_a-z][^\s,;:!?]*(?:[\s:&–-]+(?:(?:of|the|and|in|a|to|for|on|at|with|de|la|vs\.?)\s+)*[^\W_a-z][^\s,;!?]*)*"
)
_ON = (
    r"(?:(?!\b(?:try|watch|see|check|consider|go|read|play|pick|give|start|recommend|suggest|i|you)\b)[^,.;:!?\n—]){0,70}"
    r"[*_\"“«\[]*"
)
"""What may stand between a verb of liking and a title that is liked: words of the same clause, no advice."""
_LIKED = re.compile(
    r"(?:\b(?:skip|avoid|instead of|rather than|unlike|other than|apart from|besides|forget|stay away from"
    r"|(?:not|n['’]t)(?: \w+)? (?:watch|read|play|recommend|mean)|liked|loved|enjoyed|already (?:seen|watched)|watched"
    r"|love of|fans? of|similar to|reminiscent of|(?:(?:it|that|this)['’]s|is|are|feels?|looks?|plays?|reads?|much"
    r"|a bit|kind of|sort of|something|somewhat|almost|think|more|less) like"
    r"|remind\w* \w+ of|than|mentioned|in the (?:vein|spirit|style) of)"
    r"|\b(?:if|since|because|as) you(?:['’](?:re|ve))? (?:really |also |already |clearly |so )*"
    r"(?:like|love|enjoy|into|a fan of))\s+(?:both |the |films? like |movies? like )?[*_\"“«\[]*$"
    r"|\b(?:if|since|because|as) (?:you|it seems you)(?:['’](?:re|ve))? (?:\w+ ){0,2}?"
    rf"(?:lik|lov|enjoy|appreciat|ador)\w*\b{_ON}$"
    rf"|\b(?:given|considering|based on|knowing) (?:your|that you|how much you)\b{_ON}$",
    re.IGNORECASE,
)
"""Words of a clause that names what the user likes, up to a title in it."""
_ASKS = re.compile(
    r"\b(?:(?:can|could|would|will) you (?:please )?(?:tell|share|let|name|give|list|provide)|tell me|let me know"
    r"|what (?:kind|sort|other|movies|films|books|games)|which (?:\w+ ){0,3}(?:have|did|do) you)\b[^.!?\n]*$",
    re.IGNORECASE,
)
"""The beginning of a question to the user."""
_GOES_ON = re.compile(r"[*_\"”»\])\d( ]*(?:,|,? and|,? or|&|/)\s*[*_\"“«\[]*$")
_SPLIT = re.compile(r",\s{0,3}(?:and\s|or\s)?|;|\s(?:and|or)\s|/\s")
_WITHIN = re.compile(r"(?<=[.!])\s+|\s+(?:and|&)\s+")
_CAPITALS = re.compile(r"(?:[^\W_a-z][\w’'-]*\s+(?:(?:of|the|and|in|a|to|for|on|at|with|de|la|vs\.?)\s+)*)+$")
"""Words with capitals right before a place."""
_NO_TITLE_WORDS = frozenset(
    (
        *(
            "i",
            "try",
            "watch",
            "see",
            "consider",
            "read",
            "play",
            "check",
            "rent",
            "stream",
            "start",
            "go",
            "and",
            "or",
        ),
        *("but", "then", "also", "maybe", "perhaps", "finally", "first", "next", "like", "enjoy", "films", "movies"),
        *(
            "skip",
            "avoid",
            "forget",
            "ignore",
            "unlike",
            "film",
            "movie",
            "books",
            "games",
            "from",
            "for",
            "in",
            "on",
            "with",
            "by",
            "as",
            "after",
            "before",
            "if",
        ),
        *(
            "either",
            "both",
            "plus",
            "including",
            "the",
            "a",
            "an",
            "of",
            "to",
            "at",
            "this",
            "another",
            "about",
            "give",
        ),
    )
)
"""Words with which a sentence begins before a title."""
_IS = re.compile(
    r"[*_\"”]*\s+(?:is (?:an?|the|one|my|your|also|another)|(?:would|might|could) be|offers|follows|remains)\b"
)
"""What makes the first word of a sentence a title."""
_YEAR_RIGHT_BEHIND = re.compile(r"[^\w\n]{0,6}(1[89]\d\d|20[0-3]\d)(?!\w)")
_MOST_JOINED = 10
_LONGEST_MARKED = 8
"""Words of a title in marks."""
_MOST_UNKNOWN = 200
_LONGEST_RUN = 15
_MOST = 20_000
"""Characters of prose that are searched for titles."""


def mentions(text: str, start: int, known: Known) -> list[Part]:
    """The titles that a text recommends in running prose from ``start`` on; those that it says the user liked are left
    out.
    """
    stop = min(len(text), start + _MOST)
    found = sorted(_found(text, start, stop, known), key=lambda one: (one[0], -one[1]))
    kept: list[tuple[int, int, tuple[Name, ...], Name]] = []
    end = skipped = -1
    for first, last, names in found:
        if first < end:
            continue
        before = text[max(start, first - 110) : first]
        chained = skipped >= 0 and _GOES_ON.fullmatch(text[skipped:first]) is not None
        end = last
        if _LIKED.search(before) or _ASKS.search(before) or chained:
            skipped = last
            continue
        skipped = -1
        if names[0][1] is None and (year := _YEAR_RIGHT_BEHIND.match(text, last)) is not None:
            names = tuple((title, int(year[1])) for title, _ in names)
        name = next((one for one in names if known(*one)), names[0])
        kept.append((first, last, names, name))
    # a place reaches from its sentence's beginning, or the place before it, to the next one
    parts = [Part("place", first, last, names, name) for first, last, names, name in kept]
    for part, after in pairwise(parts):
        part.stop = after.start
    if parts:
        parts[-1].stop = len(text)
    return parts


def _found(text: str, start: int, stop: int, known: Known) -> Iterator[tuple[int, int, tuple[Name, ...]]]:
    unknown: list[tuple[int, int]] = []  # in marks, and in no catalog: no part of it is a title
    for dated in _DATED.finditer(text, start, stop):
        yield from _before_year(text, start, dated, known)
    for marked in _MARKED.finditer(text, start, stop):
        said = next(group for group in (marked["a"], *marked.groups()[2:]) if group)
        names = read_title(said).names
        if any(known(*name) for name in names) and (known(said, None) or not describes(said)):
            yield marked.start(), marked.end(), names
        elif len(said.split()) <= _LONGEST_MARKED and not describes(said) and not _DATED.search(said):
            unknown.append((marked.start(), marked.end()))
    for line in re.finditer(r"[^\n]+", text[start:stop]):
        yield from _chunks(line[0], start + line.start(), known)
    for run in _RUN.finditer(text, start, stop):
        if not any(first <= run.start() < last for first, last in unknown[-_MOST_UNKNOWN:]) and not run[0].isdecimal():
            yield from _in_run(text, run.start(), run.end(), known)


def _in_run(text: str, start: int, stop: int, known: Known) -> Iterator[tuple[int, int, tuple[Name, ...]]]:
    """The known titles of a run of words with capitals: the longest between the ends of sentences and ``and``."""
    cuts = [*_WITHIN.finditer(text, start, stop)][:_MOST_JOINED]
    begins, ends = [start, *(cut.end() for cut in cuts)], [*(cut.start() for cut in cuts), stop]
    first = 0
    while first < len(begins):
        for last in range(len(ends) - 1, first - 1, -1):
            said = text[begins[first] : ends[last]].rstrip(".'’\"*_)")
            long = " " in said or (
                len(said) >= 4
                and (not _begins(text, begins[first]) or _IS.match(text, begins[first] + len(said)) is not None)
            )
            if long and known(said, None):
                yield begins[first], begins[first] + len(said), ((said, None),)
                first = last
                break
        first += 1


def _begins(text: str, place: int) -> bool:
    """Whether a sentence begins here, where every word has a capital."""
    before = text[:place].rstrip(' *_"“')
    return not before or before[-1] in ".!?\n:"


def _before_year(
    text: str, start: int, dated: re.Match[str], known: Known
) -> Iterator[tuple[int, int, tuple[Name, ...]]]:
    """The title before a year in brackets: the longest known one, else the words with capitals."""
    year = int(dated[1])
    line = text.rfind("\n", start, dated.start()) + 1
    said = text[max(line, start, dated.start() - 160) : dated.start()]
    offset = dated.start() - len(said)
    words = [found.start() for found in re.finditer(r"\S+", said)][-_LONGEST_RUN:]
    for word in words:
        title = said[word:].strip(' *_"“”«»《》[]')
        if title and known(title, year) and _stands_alone(said[:word]):
            yield offset + word, dated.end(), ((title, year),)
            return
    run = [found for found in _RUN.finditer(said) if not said[found.end() :].strip(' *_"“”«»[]')]
    if run:
        yield offset + run[-1].start(), dated.end(), ((run[-1][0].strip(' *_"'), year),)


def _stands_alone(before: str) -> bool:
    """Whether a known title behind some words is no part of a longer one (``Son of Alien (1979)``)."""
    run = _CAPITALS.search(before)
    if run is None or not run[0].strip():
        return True
    words = re.findall(r"[\w’'-]+", run[0])
    return words[-1].endswith(("'s", "’s", "s'", "s’")) or all(word.lower() in _NO_TITLE_WORDS for word in words)


def _chunks(line: str, offset: int, known: Known) -> Iterator[tuple[int, int, tuple[Name, ...]]]:
    """The titles of a line that is a list with commas, without years: most of its pieces are known."""
    body = re.match(r"[^:\n]{0,80}:[*_]*\s+(?=\S)", line)
    begin = body.end() if body else 0
    if known(line.strip(), None):
        return
    cuts = [(found.start(), found.end()) for found in _SPLIT.finditer(line, begin)]
    begins, ends = [begin, *(stop for _, stop in cuts)], [*(first for first, _ in cuts), len(line)]
    pieces = [(first, stop, line[first:stop].strip(' .*_"')) for first, stop in zip(begins, ends, strict=True)]
    good = sum(known(piece, None) for _, _, piece in pieces)
    if len(pieces) >= 2 and good * 2 > len(pieces):
        for first, stop, piece in pieces:
            if piece and (known(piece, None) or not _DATED.search(piece)):
                yield offset + first, offset + stop, ((piece, None),)
