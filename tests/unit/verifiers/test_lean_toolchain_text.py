"""Lean source as text: comments, words, and text on which two scanners might disagree."""

from __future__ import annotations

import pytest

from rlpost_verifiers.lean.text import CommentError, blank_comments, find_ambiguous, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rfl", "rfl"),
        ("rfl -- /- open", "rfl           "),
        ("a /- b\nc -/ d", "a     \n     d"),
        ("/- /- -/ axiom -/ rfl", "                  rfl"),
        ("/--/ axiom -/ rfl", "     axiom -/ rfl"),
        ("/- -- -/ rfl", "         rfl"),
        ("/-/ axiom -/ rfl", "             rfl"),
        ("x/- a -/y", "x       y"),
        ("-- a\n-- b\nrfl", "    \n    \nrfl"),
    ],
)
def test_comments_become_blanks_and_nothing_moves(text: str, expected: str) -> None:
    assert blank_comments(text) == expected
    assert len(expected) == len(text)


@pytest.mark.parametrize("text", ["/-", "/- /- -/", "rfl /-- doc", "a |-- b", "a =/- b -/"])
def test_comments_that_never_end_or_may_be_none_are_refused(text: str) -> None:
    with pytest.raises(CommentError):
        blank_comments(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Polynomial.eval x p", ["Polynomial.eval", "x", "p"]),
        ("λaxiom", ["axiom"]),
        ("Πaxiom Σdef", ["axiom", "def"]),
        ("1.axiom", ["axiom"]),
        ("x..def", ["x", "def"]),
        ("(p).def", ["p", "def"]),
        ("∘ₗaxiom ∑'axiom ⁻¹'axiom", ["axiom", "axiom", "axiom"]),
        ("hε₁'.axiom!", ["hε₁'.axiom!"]),
        ("éaxiom", ["axiom"]),
    ],
)
def test_words_are_cut_where_any_lean_might_cut_them(text: str, expected: list[str]) -> None:
    assert [word.text for word in words(text)] == expected


@pytest.mark.parametrize(
    "text", ["1axiom", "1e5axiom", "1.5e3axiom", "1.e5axiom", "0xfopen", "2 3def", "'a'axiom", r"'\n'def"]
)
def test_words_that_could_hide_in_a_number_or_character_are_found(text: str) -> None:
    assert find_ambiguous(text) is not None


@pytest.mark.parametrize(
    "text", ["h1.2.elim", "h.1.2", "x₁ 2", "f '' s", "f ⁻¹' s'", "a'b' 0.5", "10 ^ 5", "∑' i, f i"]
)
def test_honest_numbers_and_primes_pass(text: str) -> None:
    assert find_ambiguous(text) is None
