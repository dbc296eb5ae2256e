r"""Lean source as text: removes comments and finds words. No Lean is needed and none is trusted here.

The rules of Lean's own scanner are followed where a proof could exploit a difference. Where Lean's versions differ, the
narrower rule applies: text that is only perhaps part of a longer word counts as a word of its own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMMENT_MARK = re.compile(r"--|/-")
_BLOCK_MARK = re.compile(r"-/|/-")
# What may stand directly before a comment. After any other symbol, "--" could be the end of an operator's name.
_BEFORE_COMMENT = re.compile(r"[\s\w'!?()\[\]{}⟨⟩,;.]")

# Letters in every version of Lean 4: ASCII, Greek without λ, Π and Σ, letter-like symbols, script letters.
_LETTER = "A-Za-z_α-κμ-ωΑ-ΟΡ-\u03a2Τ-Ωϊ-ϻἀ-\u1ffe℀-⅏𝒜-𝖟"
_REST = _LETTER + "0-9'!?₀-₉ₐ-ₜᵢ-ᵪ"
_WORD = re.compile(rf"[{_LETTER}][{_REST}]*(?:\.[{_LETTER}][{_REST}]*)*")
# Only after these does a digit or a prime surely belong to a name: "!", "'", "?" and subscripts also end symbols, as in
# "!b", "f '' s" and "∘ₗ".
_INSIDE = _LETTER + "0-9"
# Lean reads "1axiom" as a number and a keyword, and "1e5axiom" and "0xfopen" so too.
_GLUED = re.compile(rf"(?<![{_INSIDE}])[0-9]+(?:(?:\.[0-9]+)?[{_LETTER}]|\.[eE][0-9])")
# Lean reads "'a'axiom" as a character and a keyword. Not one: the primes of "f '' s", "f ⁻¹' s" and "h'".
_CHARACTER = re.compile(rf"(?<![{_INSIDE}])'(?:\\|[^'\\]')")


# A text without escapes that Lean interprets as code, and not glued to a word as in `s!"…"` or `r"…"`.
_PLAIN_STRING = re.compile(r'(?<![A-Za-z0-9_\'!?#"])"((?:[^"\\{}\n]|\\[nt"\\]|\\u[0-9a-f]{4})*)"(?!["A-Za-z0-9_])')
_NAME_RUN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASCII_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class CommentError(ValueError):
    """The comments cannot be removed from the text; the message says why."""


@dataclass(frozen=True, slots=True)
class Word:
    """A name or keyword as Lean's scanner delimits it, e.g. ``Nat.succ`` or ``by``.

    Attributes:
        parts: its dot-separated parts.
        start: index of its first character in the text.
        end: index one past its last character.
    """

    parts: tuple[str, ...]
    start: int
    end: int

    @property
    def text(self) -> str:
        """The word as written."""
        return ".".join(self.parts)


def blank_comments(text: str) -> str:
    r"""``text`` with blanks in place of its comments, so that every position stays what it was.

    Only for text without string literals and quoted names, in which apparent comments are not comments.

    Raises:
        CommentError: for a comment that never ends, or one glued to an operator.

    >>> blank_comments("by -- note\n  rfl /- a /- b -/ -/")
    'by        \n  rfl                '
    """
    pieces: list[str] = []
    position = 0
    while mark := _COMMENT_MARK.search(text, position):
        start = mark.start()
        if start and not _BEFORE_COMMENT.match(text[start - 1]):
            raise CommentError(f"{text[start - 1 : start + 2]!r} may or may not open a comment; put a blank before it")
        end = _comment_end(text, mark)
        pieces += text[position:start], re.sub(r"[^\n]", " ", text[start:end])
        position = end
    return "".join((*pieces, text[position:]))


def normal_form(text: str) -> str:
    r"""An answer without what Lean does not read: comments, and runs of white space as one blank.

    Answers with the same normal form are the same proof, up to indentation. Where it is not certain what is a comment,
    comments stay.

    >>> normal_form("by\n  rfl  -- done") == normal_form("by rfl")
    True
    """
    return " ".join(blank_comments_safely(text).split())


def blank_comments_safely(text: str) -> str:
    """`blank_comments`, but the text as it is where it is not certain what is a comment."""
    with contextlib.suppress(CommentError):
        return blank_comments(text)
    return text


def _comment_end(text: str, opening: re.Match[str]) -> int:
    if opening[0] == "--":
        newline = text.find("\n", opening.end())
        return len(text) if newline < 0 else newline
    depth, position = 1, opening.end()
    while depth:
        mark = _BLOCK_MARK.search(text, position)
        if mark is None:
            raise CommentError("a comment is opened by '/-' and never closed")
        depth += 1 if mark[0] == "/-" else -1
        position = mark.end()
    return position


def blank_strings(text: str) -> str:
    """``text``, in which no comment mark stands anywhere, with blanks in place of plain texts.

    >>> blank_strings('("a" : String) = s!"{x}"')
    '(    : String) = s!"{x}"'
    """
    if text.count('"') % 2 or "'\"" in text:
        return text
    return _PLAIN_STRING.sub(lambda found: " " * len(found[0]), text)


def is_inside_name(text: str, index: int) -> bool:
    """Whether ``index`` surely lies inside a name: a run of ASCII letters and digits that begins with a letter.

    >>> is_inside_name("fun h1end", 6), is_inside_name("fun 1end", 5), is_inside_name("∘ₗa1end", 4)
    (True, False, False)
    """
    start = index
    while start and text[start - 1] in _ASCII_NAME:
        start -= 1
    apart = start == 0 or text[start - 1] in " \n()[]{}⟨⟩,;"
    return apart and _NAME_RUN.fullmatch(text, start, index) is not None


def words(text: str) -> Iterator[Word]:
    """The words of a text without comments, in order.

    >>> [word.text for word in words("exact Nat.lt_irrefl _ (h.1.2 x₁')")]
    ['exact', 'Nat.lt_irrefl', '_', 'h', "x₁'"]
    """
    for match in _WORD.finditer(text):
        yield Word(tuple(match[0].split(".")), match.start(), match.end())


def find_ambiguous(text: str) -> str | None:
    """The first place where Lean and `words` might disagree on where a word begins: a number or character before it.

    >>> find_ambiguous("exact h1 2axiom"), find_ambiguous("exact (h.1.2.elim : f '' s = f ⁻¹' s)")
    ('2a', None)
    """
    match = _GLUED.search(text) or _CHARACTER.search(text)
    return match and match[0]
