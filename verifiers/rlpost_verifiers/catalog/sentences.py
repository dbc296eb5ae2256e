"""Whether a line of a text holds a title for certain, looks like one, or is a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rlpost_verifiers.catalog.marks import Line
from rlpost_verifiers.catalog.titles import clean, describes, ends_with_author, without_label
from rlpost_verifiers.catalog.wording import behind_offer

_SAYS = re.compile(
    r"(?:for (?:fans|lovers|those|people|a|the)\b.* (?:of|who|like)|for (?:fans|lovers) of|if you|because you|since you"
    r"|similar to|more like|inspired by|based on|given your|as you|like your)\b",
    re.IGNORECASE,
)
TALKS = re.compile(r"\b(?:you|your|i|i['’]d|i['’]ll|i['’]ve|we|these|here|this|let|which|was|is|are)\b", re.IGNORECASE)
_OFFERS = re.compile(
    r"(?:i['’]d|i['’]ll|i (?:would|can|think|suggest|recommend)|you (?:might|may|could|should|can|['’]ll|will|would)"
    r"|check out|how about|why not|(?:you )?(?:also )?consider|have you (?:seen|tried|read|played)|perhaps|maybe"
    r"|there(?:['’]s| is))\b",
    re.IGNORECASE,
)
_SHAPES = (": ", " - ", " – ", " — ", " by ", " (")
_YEARS = re.compile(r"[(\[（][^()\[\]（）]{0,40}(?:1[89]|20)\d\d\s*年?[)\]）]")
_SENTENCE_WORDS = 6
_TITLE_WORDS = 14
ENOUGH = 0.5
"""Share of the lines with a mark that must hold titles for the others to count as titles too."""


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
        return line.reading.dated or not TALKS.search(full[0]) or line.reading.lead
    return line.reading.dated and not is_sentence(line)


def _tells_of_several(said: str) -> bool:
    """Whether a line is a sentence with several years: prose that names titles."""
    return len(_YEARS.findall(said)) > 1 and said[-1] in ".!?:。！？" and len(said.split()) > _SENTENCE_WORDS


def is_sentence(line: Line) -> bool:
    """Whether a line without a known title is a sentence, and no title."""
    said = clean(line.body).strip("*_ ")
    words = said.split()
    if line.reading.dated and line.name is not None:
        title = line.name[0].split()
        if (len(title) >= 4 and TALKS.search(line.name[0])) or _OFFERS.match(said):
            return True
        rest = line.reading.rest
        goes_on = re.match(r",?\s+(?:[a-z]|and\b)", rest) is not None and said[-1] in ".!?:。"
        return line.mark == "plain" and (goes_on or (len(title) >= 5 and said[-1] in ".!?:。！？" and len(rest) < 3))
    if not words or ends_with_author(said):
        return False
    if said[-1] in ".!?…。！？" and (len(words) >= 3 or (len(said) > 12 and not said.isascii())):
        return True
    return (len(words) >= _SENTENCE_WORDS and describes(said)) or len(words) > _TITLE_WORDS


def title_like(line: Line) -> bool:
    """Whether a line without a known title and a year looks like a title."""
    name = min((name for name, _ in line.reading.names), key=len, default="")
    words = name.split()
    if not words or len(words) > _TITLE_WORDS or name[-1] in "?？:：" or describes(name):
        return False
    return not (name[-1] in ".。" and len(words) > 3)


def shape(line: Line) -> set[str]:
    """How a line writes its title: what tells that the next line of the same shape is one too."""
    said = clean(line.body).strip("*_ ")
    found = {"dated"} if line.reading.dated else set[str]()
    found |= {"lead"} if line.reading.lead else set()
    found |= {"!"} if said.endswith("!") and len(said.split()) <= _SENTENCE_WORDS else set()
    for cut in _SHAPES:
        head, behind, _ = said.partition(cut)
        if behind and len(head.split()) <= _SENTENCE_WORDS + 2 and not TALKS.search(head):
            found.add(cut)
    return found


def common_shape(
    keys: Sequence[tuple[str, int, int]], strong: Sequence[bool], lines: Sequence[Line], key: tuple[str, int, int]
) -> set[str]:
    """What most of the certain titles with one mark have in common."""
    shapes = [shape(line) for own, sure, line in zip(keys, strong, lines, strict=True) if own == key and sure]
    counted = Counter(one for shape in shapes for one in shape)
    return {one for one, count in counted.items() if count > ENOUGH * len(shapes)}
