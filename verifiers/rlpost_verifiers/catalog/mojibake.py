"""Titles whose UTF-8 bytes were read in another encoding: repaired where nobody would have written the original.

``AmÃ©lie`` holds two characters whose bytes (in Windows-1252) are the UTF-8 of é. Two characters alone prove little:
``CAFÉ™`` is a title, and its last two characters are the bytes of ə. So each sequence is looked at in its place, and a
repair needs one that no writer leaves: an accented capital after a small letter, a sign in the middle of a word.
"""

from __future__ import annotations

import re

_PAIR = re.compile("[^\x00-\x7f]{2}")
_PASSES = 3
"""Titles were read wrongly at most this many times in a row."""
_WORD_END = frozenset("™®©…’‘”“–—»«›‹°º²³¹·¡¿¦§¶ ªŠŽšžœŒŸ")
"""Characters that people write directly behind a capital with an accent."""
_SWAPPED = dict(zip("ÈËÍÎÏÌÊÒÛÙÔÁÓÚÂ", "éèêëìíæñóôïçîòå", strict=True))
"""Letters of Windows-1252 as Mac Roman reads their bytes; nearly no word has the left one after a small letter."""
_RARE_STARTS = frozenset("ÁÓÚÂÍ")
"""Capitals that names in camel case begin with (``MiÁfrica``): alone they are no evidence."""
_INNER_CAPITAL = re.compile(f"(?<![^\\W\\d_])[^\\W\\d_]+?[{''.join(_SWAPPED)}](?![A-Z])")
_SWAP = re.compile(f"(?<=[^\\W\\d_])[{''.join(_SWAPPED)}](?![A-Z])")
_PLAUSIBLE = frozenset("’‘“”–—…•™®©·°²³½¿¡«»\xa0\xad\u200b\ufeff")
"""What a misread sequence may mean besides a letter."""
_NEVER = frozenset("├┬")
"""Lines of boxes, which no title holds."""
_OPERANDS = frozenset("π∞Ω∑∏∂∫∆")
"""What people write behind a root."""


def repaired(title: str) -> str:
    """The title as it was meant, where its present form is evidently misread; the same title otherwise.

    >>> [repaired(t) for t in ("AmÃ©lie", "Schindlerâ€™s List", "LÈon", "CAFÉ™", "Star Wars – A New Hope")]
    ['Amélie', 'Schindler’s List', 'Léon', 'CAFÉ™', 'Star Wars – A New Hope']
    """
    if title.isascii():
        return title
    for _ in range(_PASSES if _PAIR.search(title) else 0):
        best = min((codec(title) for codec in _CODECS), key=len)  # the encoding that explains most of it
        if best == title:
            break
        title = best
    return _swapped(title)


class _Codec:
    """Sequences of characters that are UTF-8 when written in an encoding."""

    def __init__(self, encoding: str, whole: bool = False):
        self._bytes: dict[str, int] = {}
        for byte in range(128, 256):
            character = bytes([byte]).decode(encoding, "replace")
            self._bytes[chr(byte) if character == "\ufffd" else character] = byte
        if encoding == "cp1252":  # Latin-1 reads these bytes as control characters
            self._bytes |= {chr(byte): byte for byte in range(0x80, 0xA0)}

        def span(first: int, last: int) -> str:
            return "[" + re.escape("".join(c for c, byte in self._bytes.items() if first <= byte <= last)) + "]"

        more = span(0x80, 0xBF)
        self._sequence = re.compile(
            f"{span(0xC2, 0xDF)}{more}|{span(0xE0, 0xEF)}{more}{{2}}|{span(0xF0, 0xF4)}{more}{{3}}"
        )
        self._whole = whole

    def __call__(self, title: str) -> str:
        found = [(one, text) for one in self._sequence.finditer(title) if (text := self._text(one[0])) is not None]
        evident = _mixed if self._whole and not _covered(title, found) else _evident
        if not any(evident(title, one.start(), one.end(), text) for one, text in found):
            return title
        pieces, place = [], 0
        for one, text in found:
            pieces += [title[place : one.start()], text]
            place = one.end()
        return "".join([*pieces, title[place:]])

    def _text(self, sequence: str) -> str | None:
        try:
            text = bytes(self._bytes[character] for character in sequence).decode("utf-8")
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() or text in "\xa0\xad\u200b\ufeff" else None


_CODECS = (_Codec("cp1252"), _Codec("mac_roman"), _Codec("cp437"), _Codec("cp1251", whole=True))
"""Encodings in which UTF-8 is read by mistake. Cyrillic words hold such pairs, so there the whole title must."""


def _covered(title: str, found: list[tuple[re.Match[str], str]]) -> bool:
    """Whether every character outside ASCII belongs to a sequence, of which there are several."""
    return len(found) > 1 and sum(len(one[0]) for one, _ in found) == sum(c > "\x7f" for c in title)


def _mixed(title: str, start: int, stop: int, text: str) -> bool:
    """Whether a sequence of Cyrillic letters and signs touches a Latin letter: ``AmГ©lie``."""
    around = title[start - 1 : start] + title[stop : stop + 1]
    return "Ѐ" <= title[start] <= "ӿ" and any(c.isascii() and c.isalpha() for c in around) and text.isprintable()


def _evident(title: str, start: int, stop: int, text: str) -> bool:
    """Whether nobody would write ``title[start:stop]`` in its place."""
    before, behind = title[start - 1 : start], title[stop : stop + 1]
    first, rest = title[start], title[start + 1 : stop]
    if not (text.isalpha() or text in _PLAUSIBLE or ord(text) > 0x3000):
        return False
    if first.isupper() and before.islower() and "À" <= text <= "ſ":
        return True
    if rest[0] in _OPERANDS and not behind.isalpha():
        return False
    if not first.isalpha() and (before.isalpha() or first in _NEVER):
        return True
    if first in "ÂÃ" and (before.islower() or not before.isalpha()) and rest not in "…’”":
        return True
    return behind.isalnum() or not all(character in _WORD_END for character in rest)


def _swapped(title: str) -> str:
    """Accents whose bytes in Windows-1252 were read in Mac Roman: ``LÈon``, ``AmÈlie``."""
    words = _INNER_CAPITAL.findall(title)
    if not words or not all(_no_name(word[:-1]) for word in words):
        return title
    if all(word[-1] in _RARE_STARTS for word in words):
        return title
    return _SWAP.sub(lambda letter: _SWAPPED[letter[0]], title)


def _no_name(start: str) -> bool:
    """Whether the letters before an inner capital begin no name (``McÈ…``) and no Irish word (``nÓg``)."""
    if start.lower() in ("mc", "mac", "de", "la", "le", "di", "du", "fitz"):
        return False
    return start.isupper() if len(start) == 1 else start[1:].islower()
