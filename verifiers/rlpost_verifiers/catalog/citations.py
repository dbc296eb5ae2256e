"""Titles of works that are cited: behind their authors, as reference lists of papers write them."""

from __future__ import annotations

import re

from rlpost_verifiers.catalog.names import year_of

_YEAR = r"(?:1[89]|20)\d\d"
_AUTHORS = re.compile(r"\bet al\b|(?:^|[\s,;&])[^\W\d_a-z]\.(?=[\s,;&(-]|$)|\s&\s")
"""What only lists of authors have: ``et al.``, initials, an ampersand."""
_DATED_BEFORE = re.compile(
    rf"(?P<who>[^\W\d_a-z][^()\"“\d]{{1,200}}?)[\s,]*\((?P<year>{_YEAR})[a-z]?(?:,[^()]{{0,20}})?\)\s*[.,:]?\s+"
    r"[\"“*_]*(?P<title>[^\W_].+)"
)
_QUOTED = re.compile(
    r"(?P<who>[^\W\d_a-z][^\"“*_]{2,200}?)[\s,.:]+[\"“*_]{1,3}(?P<title>[^\"”*_]{2,300}?)[\"”*_]{1,3}(?P<rest>.*)"
)
_SURNAME = re.compile(r"[^\W\d_a-z][\w’'-]+,\s+[^\W\d_a-z]")
_END = re.compile(r"[.?!]?[\"”*_]+|(?<=[.?!])\s|\.$")


def _in_style(text: str, found: re.Match[str]) -> bool:
    """Whether surname and first name stand before the title, and its full stop or comma within the quotation marks."""
    return found["title"][-1] in ".," and _SURNAME.match(found["who"]) is not None


def cited(text: str) -> tuple[str, int | None] | None:
    """Title and year of a work that is cited with its authors in front; None for another text.

    >>> cited("Kingma, D. P., & Ba, J. (2014). Adam: A Method for Stochastic Optimization. ICLR.")
    ('Adam: A Method for Stochastic Optimization', 2014)
    >>> cited('He et al., "Deep Residual Learning," in CVPR, 2016'), cited("Alien (1979). A classic.")
    (('Deep Residual Learning', 2016), None)
    """
    if (found := _DATED_BEFORE.match(text)) and _AUTHORS.search(found["who"]):
        title = _END.split(found["title"], maxsplit=1)[0]
        return title.rstrip(". "), year_of(found["year"])
    if (found := _QUOTED.match(text)) and (_AUTHORS.search(found["who"]) or _in_style(text, found)):
        years = re.findall(rf"(?<!\d){_YEAR}(?!\d)", f"{found['who']} {found['rest']}")
        return found["title"].rstrip(",. "), year_of(years[-1]) if years else None
    return None
