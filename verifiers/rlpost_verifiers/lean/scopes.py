"""The namespaces and sections that a piece of Lean opens: read from its words, without Lean."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rlpost_verifiers.lean.text import Word, blank_comments, words

Name = tuple[str | int, ...]

_OPENED = re.compile(r"(?<![\w'!?.])open(?![\w'!?.])(?:[ ]+scoped(?![\w'!?.]))?((?:(?:[ ]+|\n[ ]+)[A-Za-z_][\w'.]*)+)")
_NO_NAMESPACE = ("in", "hiding", "renaming", "scoped")
_SCOPES = ("section", "namespace", "mutual")


def open_scopes(text: str, found: Iterable[Word]) -> list[tuple[str, str]]:
    """The scopes that are still open after the words ``found`` of ``text``: keyword and name, outermost first.

    >>> text = "namespace A.B section end mutual"
    >>> open_scopes(text, words(text))
    [('namespace', 'A.B'), ('mutual', '')]
    """
    scopes: list[tuple[str, str]] = []
    known = list(found)
    for index, word in enumerate(known):
        after = known[index + 1] if index + 1 < len(known) else None
        same_line = after is not None and "\n" not in text[word.end : after.start]
        if word.text in _SCOPES:
            named = word.text != "mutual" and same_line and after is not None and after.text not in ("end", *_SCOPES)
            scopes.append((word.text, after.text if named and after is not None else ""))
        elif word.text == "end" and scopes:
            scopes.pop()
    return scopes


def closing_lines(text: str) -> list[str]:
    r"""The ``end`` lines for namespaces and sections that ``text`` leaves open, which Lean permits at a file's end.

    >>> closing_lines("namespace A\nsection")
    ['end', 'end A']
    """
    return [f"end {name}".strip() for _, name in reversed(open_scopes(text, words(text)))]


def scope_after(context: str) -> Name:
    """The namespace that is current after a context, whose comments do not count.

    >>> scope_after("namespace A.B -- namespace C")
    ('A', 'B')
    """
    if "namespace" not in context:
        return ()
    bare = blank_comments(context)
    names = (name for keyword, name in open_scopes(bare, words(bare)) if keyword == "namespace")
    return tuple(part for name in names for part in name.split("."))


def has_variables(context: str) -> bool:
    """Whether a context declares variables, some of which Lean makes arguments of the theorem.

    >>> has_variables("def variable_free := 1 -- variable (n : Nat)")
    False
    """
    return "variable" in context and any(word.text == "variable" for word in words(blank_comments(context)))


def opened_namespaces(text: str) -> str:
    r"""One line that makes known the namespaces that ``text`` opens, since models open Mathlib's where there are none.

    >>> opened_namespaces("open Nat Real in\ntheorem t : True := trivial")
    'namespace Nat end Nat namespace Real end Real\n'
    """
    names: dict[str, None] = {}
    for found in _OPENED.finditer(text):
        for name in found[1].split():
            if name in _NO_NAMESPACE:
                break
            names[name.rstrip(".")] = None
    return " ".join(f"namespace {name} end {name}" for name in names) + "\n" if names else ""
