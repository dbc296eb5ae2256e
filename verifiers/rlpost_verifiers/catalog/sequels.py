"""Tells a sequel from its first part: numbers, numerals, parts and volumes of two titles must agree.

Similar titles are often those of a series. Whatever matches titles that are not spelt the same asks `agree` first: a
reward for *Toy Story 4* because *Toy Story* was wanted would teach a model to invent sequels.
"""

from __future__ import annotations

import re

from rlpost_verifiers.catalog.names import canonical

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
_ROMANS = (
    *("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"),
    *("xi", "xii", "xiii", "xiv", "xv", "xvi", "xvii", "xviii", "xix", "xx"),
)
_NUMBERS = {word: n for n, word in enumerate(_WORDS, 1)}
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "final": -1, "last": -1}
_ROMAN = {word: n for n, word in enumerate(_ROMANS, 1)}
_PARTS = frozenset(
    ("part", "pt", "vol", "volume", "chapter", "episode", "book", "season", "series", "teil", "partie", "parte", "tome")
)
_LETTERS = frozenset(("i", "v", "x"))
"""Numerals that are also letters (``I, Robot``, ``X-Men``): they count after a word like ``part``, or, but for ``i``,
as the last word."""
_DIGITS = re.compile(r"(?<![^\W\d_])\d+|\d+(?![^\W_])")


def numbers_of(title: str, words_too: bool = False) -> tuple[int, ...]:
    """The numbers in a title, sorted, but for 1: a first part is often written without its number.

    Digits count, unless letters enclose them (``Se7en``), Roman numerals as whole words, number words after a word like
    ``part`` or at the end, ordinals beside a word like ``part``; ``final`` and ``last`` in such a place are -1.

    Args:
        title: a title in any spelling.
        words_too: whether number words count wherever they stand.

    >>> numbers_of("Kill Bill: Vol. 2"), numbers_of("Rocky II"), numbers_of("Dune: Part One"), numbers_of("X-Men")
    ((2,), (2,), (), ())
    """
    words = canonical(title).split()
    found: list[int] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        after = words[place + 1] if place + 1 < len(words) else ""
        numbered, last = before in _PARTS, place > 0 and not after
        if digits := _DIGITS.findall(word):
            found += [int(one[:9]) for one in digits]
        elif word in _NUMBERS and (words_too or numbered or last):
            found.append(_NUMBERS[word])
        elif word in _ORDINALS and (numbered or after in _PARTS):
            found.append(_ORDINALS[word])
        elif word in _ROMAN and (word not in _LETTERS or numbered or (word != "i" and last)):
            found.append(_ROMAN[word])
    return tuple(sorted(number for number in found if number != 1))


def agree(asked: str, title: str) -> bool:
    """Whether one title may be the other misspelt: their numbers are the same, and neither is the plural of the other
    (``Alien``, ``Aliens``) or goes on with further words (``Ticket to Ride: Europe``), but for ``Part One``.

    >>> agree("Toy Story 4", "Toy Story"), agree("The Godfather 2", "Godfather Part II"), agree("Aliens", "Alien")
    (False, True, False)
    """
    if numbers_of(asked) != numbers_of(title) and numbers_of(asked, True) != numbers_of(title, True):
        return False
    one, other = sorted((canonical(asked), canonical(title)), key=len)
    longer = other.startswith(f"{one} ") and continues(other[len(one) + 1 :]) is not False
    return other != f"{one}s" and not longer


_CONTINUES = re.compile(
    r"\W*((?:" + "|".join(_PARTS) + r")s?\b\W*\w+|(?:\d{1,2}|[ivx]+)(?=\W*$|\s*[:,|]|\s+[–—-]\s))", re.IGNORECASE
)


def continues(rest: str) -> bool | None:
    """Whether what stands behind a title makes it a sequel; None if it says nothing of parts.

    >>> continues("Part Two"), continues("Part One"), continues("a film in 3 acts"), continues("II")
    (True, False, None, True)
    """
    found = _CONTINUES.match(rest)
    return None if found is None else bool(numbers_of(f"x {found[1]}"))


def spellings(title: str) -> list[str]:
    """Other spellings of the number of a part: ``Rocky 2`` for ``Rocky II``, ``Kill Bill Vol. 1`` for ``… Volume One``.

    >>> [name for name in spellings("The Godfather II") if "part" in name]
    ['godfather part 2', 'godfather part ii', 'godfather part two']
    """
    words = canonical(title).split()
    for place in range(len(words) - 1, 0, -1):
        number = _value(words[place])
        part = words[place - 1] in _PARTS
        if number is None or not (part or place == len(words) - 1 or place < _FARTHEST):
            continue
        head, tail = words[: place - part], words[place + 1 :]
        written = [str(number), _ROMANS[number - 1], *_WORDS[number - 1 : number]]
        return [
            " ".join((*head, *([kind] if kind else []), one, *tail))
            for kind in ("", "part", "chapter", "vol", "volume", "episode")
            for one in written
            if head
        ]
    return []


_FARTHEST = 4
"""Words before a number that is not at the end of a title (``Terminator II: Judgment Day``)."""


def _value(word: str) -> int | None:
    if word.isdecimal() and 0 < int(word[:9]) <= len(_ROMANS):
        return int(word)
    return _NUMBERS.get(word) or _ROMAN.get(word)
