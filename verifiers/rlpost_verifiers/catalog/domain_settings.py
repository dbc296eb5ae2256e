"""Reads a domain from the settings of a data source; `rlpost_verifiers.catalog.domains` has what one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from rlpost.errors import UserError
from rlpost_verifiers.catalog.domains import DOMAINS, FILMS, Domain, Wording, number


def domain_of(given: str | Mapping[str, Any] | Domain | None, catalog: str | None) -> Domain:
    """A domain by its name or from a mapping of its fields; None: that of the catalog that ships, else ``films``.

    A mapping may hold ``like`` with the name of the domain whose other fields it takes, ``goods`` if not given, and
    ``wording``, a mapping of fields of `Wording`.

    Raises:
        UserError: for an unknown name or field, or a value of another kind.
    """
    if isinstance(given, Domain):
        return given
    if given is None:
        return DOMAINS.get(catalog or "films", FILMS)
    if isinstance(given, str):
        return _named(given)
    if not isinstance(given, Mapping):
        raise UserError(f"domain is {given!r}; give {' or '.join(DOMAINS)}, or a mapping")
    values = dict(given)
    like = _named(values.pop("like", "goods"))
    words = values.pop("wording", None) or {}
    if not isinstance(words, Mapping):
        raise UserError(f"domain.wording is {words!r}; give a mapping of {_names(Wording)}")
    found = replace(like, **_checked(values, "domain", Domain))
    return replace(found, wording=_worded(found.wording, words))


def _named(name: Any) -> Domain:
    if not isinstance(name, str) or name not in DOMAINS:
        raise UserError(f"domain is {name!r}; give {' or '.join(DOMAINS)}, or a mapping of {_names(Domain)}")
    return DOMAINS[name]


def _names(kind: type) -> str:
    return ", ".join(one.name for one in fields(kind))


def _checked(values: Mapping[str, Any], where: str, kind: type) -> dict[str, Any]:
    """The values of a domain's numbers and columns."""
    known = {one.name for one in fields(kind)} - {"wording"}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where} has no {name!r}; there are {_names(kind)}")
        if not _CHECKS[name](value):
            raise UserError(f"{where}.{name} is {value!r}; {_WANTED[name]}")
    return {name: tuple(value) if name == "span" and value is not None else value for name, value in values.items()}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return number(value) is not None and not isinstance(value, str)


def _pair(value: Any) -> bool:
    whole = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_whole, value))
    return whole and 1 <= value[0] <= value[1]


_PARTS = ("category", "maker", "amount", "votes")
_WANTED = {
    **dict.fromkeys(_PARTS, "give the name of a column, or null"),
    "log": "give true or false",
    "span": "give the least and the largest, whole numbers from 1 on, or null",
    "width": "give a number above 0, or null",
    "middle": "give a number, or null",
    "step": "give a whole number from 1 on",
}
_CHECKS = {
    **dict.fromkeys(_PARTS, lambda value: value is None or (isinstance(value, str) and value != "")),
    "log": lambda value: isinstance(value, bool),
    "span": lambda value: value is None or _pair(value),
    "width": lambda value: value is None or (_real(value) and value > 0),
    "middle": lambda value: value is None or _real(value),
    "step": lambda value: _whole(value) and value >= 1,
}


def _worded(wording: Wording, given: Mapping[str, Any]) -> Wording:
    """A wording in which the given sentences replace its own."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in {one.name for one in fields(Wording)}:
            raise UserError(f"domain.wording has no {name!r}; there are {_names(Wording)}")
        if name == "spoken":
            if not isinstance(value, Mapping):
                raise UserError(f"domain.wording.spoken is {value!r}; give a mapping of categories to words")
            values[name] = {str(key): str(word) for key, word in value.items()}
        elif name in ("between", "last"):
            values[name] = str(value)
        else:
            values[name] = _sentences(name, value)
    return replace(wording, **values)


def _sentences(name: str, value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    fields_of = {"openings": {"seen": "x", "wish": "x"}, "amount": {"amount": 1, "above": 2}, "popular": {}, "rare": {}}
    places = fields_of.get(name, {name: "x"})
    for sentence in found or (None,):
        try:
            if not isinstance(sentence, str) or not sentence.strip():
                raise ValueError
            sentence.format(**places)
        except (ValueError, LookupError, AttributeError, TypeError):
            told = " and ".join(f"{{{place}}}" for place in places) or "none"
            raise UserError(
                f"domain.wording.{name} holds {sentence!r}; give sentences, whose only fields are {told}"
            ) from None
    if name == "openings" and not all("{seen}" in one and "{wish}" in one for one in found):
        raise UserError("domain.wording.openings: each needs {seen} and {wish}")
    return found
