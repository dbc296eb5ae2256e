"""Validation errors in the user's words: the key as it is written, the value as it was given, and what it should be."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rlpost.config.hints import hint, section_at
from rlpost.config.section import MOST, Section
from rlpost.config.strict import NO_BOOL, members

_SHOWN = 80


def explain(error: ValidationError, tree: Any) -> dict[tuple[str, ...], str]:
    """A line for each faulty key, in the order in which they were found.

    Args:
        error: pydantic's error.
        tree: what was validated.
    """
    found: dict[tuple[str, ...], str] = {}
    for detail in error.errors(include_url=False):
        path, entry = _written(detail["loc"])
        if detail["type"] == "extra_forbidden":
            key = ".".join(path)
            found.setdefault(path, f"unknown key {key!r}; {hint(path)}")
        elif path not in found:
            found[path] = _line(path, entry, detail, tree)
    return found


def _line(path: tuple[str, ...], entry: int | None, detail: Mapping[str, Any], tree: Any) -> str:
    key, field = ".".join(path), _field(path)
    if entry is not None:
        return f"{key}, entry {entry + 1}: {_of_entry(detail)}"
    if field is None:
        return f"{key}: {detail['msg']}"
    value, what = _value(path, tree), _meaning(field)
    if detail["type"] == "missing" and detail["loc"] == path:
        return f"{key}: missing{what}"
    if detail["type"] == "value_error" and not str(detail["msg"]).endswith(NO_BOOL):
        return f"{key}: {str(detail['msg']).removeprefix('Value error, ')}, got {shown(value)}{what}"
    if detail["type"] == "string_pattern_mismatch":
        return f"{key}: {shown(value)} is not allowed{what}"
    said = expected(field.annotation, field.metadata)
    if detail["type"] == "less_than_equal" and " at most " not in said:
        said += f" and at most {detail['ctx']['le']}"
    quoted = "; write it in quotes" if said == "text" and isinstance(value, (int, float)) else ""
    return f"{key}: expected {said}, got {shown(value)}{quoted}{what}"


def _of_entry(detail: Mapping[str, Any]) -> str:
    """The fault of one entry of a list of sections."""
    if detail["type"] == "missing":
        return f"{detail['loc'][-1]} is missing, got {shown(detail['input'])}"
    if isinstance(detail["input"], str):
        return f"expected keys with values, got {shown(detail['input'])}; write {{name: {detail['input']}}}"
    last = detail["loc"][-1]
    if isinstance(last, str) and last.isidentifier() and last.islower():
        return f"{last}: expected text, got {shown(detail['input'])}"
    return f"expected keys with values, such as {{name: outcome}}, got {shown(detail['input'])}"


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What an annotation accepts, in words.

    >>> expected(bool | Literal["batch"]), expected(int, [annotated_types.Ge(1)])
    ('true, false or batch', 'a whole number of at least 1')
    >>> expected(tuple[float, float] | None)
    'a list of 2 values (each a number) or null'
    """
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return expected(inner, [*metadata, *more])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [word for one in get_args(annotation) for word in _words(one)]
        return _or([*(word for word in parts if word != "null"), *(["null"] if "null" in parts else [])])
    return _or(_words(annotation, metadata))


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], [*metadata, *arguments[1:]])
    if origin is Literal:
        return [json.dumps(value) if isinstance(value, bool) else str(value) for value in arguments]
    if origin is tuple:
        if arguments[-1] is ...:
            return [f"a list of {'keys with values' if _is_section(arguments[0]) else _plural(expected(arguments[0]))}"]
        return [f"a list of {len(arguments)} values (each {expected(arguments[0])})"]
    if origin is dict and get_args(annotation)[1] is not Any:
        return [f"keys with values (each {expected(get_args(annotation)[1])})"]
    if annotation is type(None):
        return ["null"]
    if annotation is bool:
        return ["true", "false"]
    if origin is dict or annotation is dict or _is_section(annotation):
        return ["keys with values"]
    if annotation is str:
        return ["text"]
    if annotation in (int, float):
        return [("a whole number" if annotation is int else "a number") + _limits(metadata)]
    return ["something else"]


def _limits(metadata: Sequence[Any]) -> str:
    flat = [one for each in metadata for one in (each.metadata if isinstance(each, FieldInfo) else [each])]
    words: list[str] = []
    for one in flat:
        match one:
            case annotated_types.Ge(ge=least):
                words.append(f"of at least {least}")
            case annotated_types.Gt(gt=least):
                words.append(f"above {least}")
            case annotated_types.Le(le=most) if most != MOST:
                words.append(f"at most {most}")
            case annotated_types.Lt(lt=most):
                words.append(f"below {most}")
            case _:
                continue
    return f" {' and '.join(words)}" if words else ""


def shown(value: Any) -> str:
    """A value as it is written in YAML, with quotes around text, cut if it is long."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, float):
        text = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _written(loc: Sequence[str | int]) -> tuple[tuple[str, ...], int | None]:
    """The key that a user can write, of a pydantic location, and the number of the entry of a list of sections."""
    path: tuple[str, ...] = ()
    for part in loc:
        if path and _is_leaf(path):
            entry = part if isinstance(part, int) and section_at(path) is None and _holds_sections(path) else None
            return path, entry
        path = (*path, str(part))
    return path, None


def _is_leaf(path: tuple[str, ...]) -> bool:
    return section_at(path) is None


def _holds_sections(path: tuple[str, ...]) -> bool:
    field = _field(path)
    return field is not None and any(
        _is_section(one) for part in members(field.annotation) if get_origin(part) is tuple for one in get_args(part)
    )


def _field(path: tuple[str, ...]) -> FieldInfo | None:
    model = section_at(path[:-1])
    return model.model_fields.get(path[-1]) if model and path else None


def _meaning(field: FieldInfo) -> str:
    return f"; it is: {' '.join(field.description.split())}" if field.description else ""


def _value(path: tuple[str, ...], tree: Any) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _or(words: Sequence[str]) -> str:
    unique = list(dict.fromkeys(words))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} or {unique[-1]}"


def _plural(words: str) -> str:
    for one, many in (
        ("text", "texts"),
        ("a whole number", "whole numbers"),
        ("a number", "numbers"),
        ("a list", "lists"),
    ):
        if words.startswith(one):
            return many + words.removeprefix(one)
    return words
