"""How a verifier tells that two answers are the same."""

from __future__ import annotations

from collections.abc import Callable

from rlpost.errors import RlpostError
from rlpost.plugins import registry


def normal_form(verifier: str | None) -> Callable[[str], str]:
    """The normal form of a configured verifier's answers (`rlpost.protocols.NormalisingVerifier`), else their words.

    >>> normal_form(None)(" a  b ")
    'a b'
    """
    if verifier is None:
        return _words
    try:
        found = registry.resolve("verifiers", verifier)
    except RlpostError:
        return _words  # whoever needs the verifier itself says what is wrong with it
    return declared_form(found) or _words


def declared_form(verifier: object) -> Callable[[str], str] | None:
    """The normal form that a verifier's class, or a partial of it, declares; None if it declares none."""
    return getattr(getattr(verifier, "func", verifier), "normal_form", None)


def _words(text: str) -> str:
    return " ".join(text.split())
