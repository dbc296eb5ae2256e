"""What pydantic takes and a user did not mean: true and false for 1 and 0."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

NO_BOOL = "true and false are no numbers"


def refuse_bool(value: Any, annotation: Any) -> None:
    """Refuse true and false where a number is wanted: Python takes them for 1 and 0.

    Raises:
        ValueError: if ``value`` is or holds one that its annotation does not name.
    """
    if isinstance(value, bool):
        if not _takes_bool(annotation):
            raise ValueError(NO_BOOL)
        return
    for part in members(annotation):
        origin, arguments = get_origin(part), get_args(part)
        if origin is tuple and isinstance(value, (list, tuple)):
            for one in value:
                refuse_bool(one, arguments[0])
        elif origin is dict and isinstance(value, Mapping):
            for one in value.values():
                refuse_bool(one, arguments[1])


def members(annotation: Any) -> list[Any]:
    """The members of a union, without their ``Annotated``.

    >>> members(Annotated[int, 1] | None)
    [<class 'int'>, <class 'NoneType'>]
    """
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for one in get_args(annotation) for part in members(one)]
    return [annotation]


def _takes_bool(annotation: Any) -> bool:
    """Whether a type takes true and false, or says better than this module why it does not."""
    numbers = (int, float)
    return all(
        part not in numbers
        and not (get_origin(part) is Literal and any(type(choice) is int for choice in get_args(part)))
        for part in members(annotation)
    ) or any(part is bool for part in members(annotation))
