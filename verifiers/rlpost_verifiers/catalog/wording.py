"""Words around titles that are none: advice before them, kinds, editions, prices and other works' years behind them."""

from __future__ import annotations

import re

_OTHERS = re.compile(
    r"\b(?:remakes?|sequel|prequel|follow.up|reboot|spin.off|adaptation|based|inspired|not|unlike|version of)\b"
    r"[^()\[\],;]{0,40}$",
    re.IGNORECASE,
)
"""Words before the year of another work: ``(a remake of the 1958 film)``."""
_FIGURE = re.compile(
    r"\W*(?:(?:US|CA|A)?[$€£¥₹]\s?\d|\d+(?:[.,]\d+)?\s*(?:[€£¥★⭐%]|USD|EUR|GBP|dollars|/\s*(?:5|10|100)\b)"
    r"|(?:rated|rating|score|imdb)\b|[★⭐])",
    re.IGNORECASE,
)
"""What follows a title and is none: a price or a rating."""
_GENRE = re.compile(
    r"\W*(?:(?:dark|romantic|psychological|historical|crime|animated|epic|cosy|cozy|classic|open.world|turn.based)\s+)?"
    r"(?:sci-?fi|science.fiction|drama|comedy|horror|thriller|crime|romance|action|adventure|fantasy|mystery|animation"
    r"|documentary|war|western|musical|family|biography|memoir|history|rpg|strategy|puzzle|simulation|(?:1[89]|20)\d\d)"
    r"(?:[\s,/&-]+[\w-]+){0,4}\W*$",
    re.IGNORECASE,
)
_FORM = re.compile(
    r"an?\s+(?:(?!graphic)[\w-]+\s+){0,2}?(?:novel|novella|memoir|biography|autobiography|thriller|romance|true story"
    r"|love story|play)\b",
    re.IGNORECASE,
)
"""A subtitle that names the kind of a work and no part of it: ``: A Novel``."""
_EDITION = re.compile(
    r"(?:the\s+)?(?:(?:game of the year|goty|definitive|complete|ultimate|deluxe|standard|digital|collector['’]?s"
    r"|enhanced|extended|limited|kindle|paperback|hardcover|audiobook|blu-?ray|dvd|4k)\b[\w\s/&-]{0,20}\bedition"
    r"|(?:director['’]?s|extended|final|theatrical|uncut)\s+cut|remastered|unabridged|paperback|hardcover|audiobook)\W*$",
    re.IGNORECASE,
)
_ORDINAL = re.compile(
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|next|finally|lastly|last)(?:ly| up| off)?"
    r"(?:[,:]| is| comes)\s+(?=\S)",
    re.IGNORECASE,
)
_OFFER = re.compile(
    r"(?i:(?:(?:first|second|third|next|finally|lastly|also|and|then)[,:]?\s+)?"
    r"(?:i(?:['’]d|\s+would)?(?:\s+(?:also|highly|strongly))?\s+(?:recommend|suggest|go (?:for|with)|start with)"
    r"|(?:you\s+(?:might|may|could|should|will|would)\s+(?:also\s+)?)?(?:like|enjoy|love|try|watch|check out|consider"
    r"|read|play|how about))\s+)(?=[^\W_a-z]|[\"“«*_])"
)
"""Words of advice before a title."""
_ADVICE = re.compile(
    r"(?i:if|for|when|want|looking|in the mood|feeling|need|since|because|as|i|i['’]d|you|try|start|begin|next|then"
    r"|finally|first|second|third|and|or|also|maybe|perhaps|going|something|another)\b[^()\[\]*_\"“«]*?[\s,:]"
    r"(?:[*_]{1,3}|[\"“«])(?P<title>[^*_\"”»]{1,120})(?:[*_]{1,3}|[\"”»])"
)
_NOT_OF = re.compile(
    r"\b(?:of|like|to|than|from|loved?|liked?|enjoy(?:ed)?|seen|watched|read|played)\s*[*_\"“«]*$", re.IGNORECASE
)
_TEX = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|emph|mathrm)\s*\{([^{}]*)\}")


def is_of_another(text: str, start: int, stop: int) -> bool:
    """Whether the words between two places say that a year behind them is that of another work.

    >>> is_of_another("The Fly (a remake of the 1958 film)", 7, 26), is_of_another("The Fly (a classic of 1958)", 7, 22)
    (True, False)
    """
    return _OTHERS.search(text, start, stop) is not None


def is_no_part(after: str) -> bool:
    """Whether what stands behind a title is a price, a rating, the kind of the work or its edition.

    >>> is_no_part("$59.99"), is_no_part("A Novel"), is_no_part("Definitive Edition"), is_no_part("Part Two")
    (True, True, True, False)
    """
    return any(pattern.match(after) for pattern in (_FIGURE, _FORM, _EDITION))


def is_genre(after: str) -> bool:
    """Whether a text begins with a genre or a year and says little more."""
    return _GENRE.match(after) is not None


def without_ordinal(text: str) -> str | None:
    """The text behind ``First,``, ``Next up:`` and the like; None if there is none."""
    found = _ORDINAL.match(text)
    return text[found.end() :] if found else None


def behind_offer(text: str) -> str | None:
    """The text behind ``I'd recommend``, ``Try`` and the like; None for another text."""
    found = _OFFER.match(text)
    return text[found.end() :] if found else None


def marked_within(text: str) -> str | None:
    """The title in bold, italics or quotation marks of a line that begins with advice; None for another line.

    >>> marked_within("If you want a slow burn, **Zodiac (2007)** is perfect."), marked_within("If you liked *Heat*")
    ('Zodiac (2007)', None)
    """
    found = _ADVICE.match(text)
    return found["title"].strip() if found and not _NOT_OF.search(text[: found.start("title")]) else None


def without_tex(text: str) -> str:
    r"""A text without the commands of TeX around words (``\boxed{Alien}``)."""
    return _TEX.sub(r"\1", text)
