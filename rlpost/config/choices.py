"""Settings with a ``Literal`` type, checked against their annotations."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

from rlpost.errors import UserError


def check_choices(settings: Any, who: str = "") -> None:
    """Refuse a value that its field's ``Literal`` does not name.

    Args:
        settings: a dataclass instance.
        who: put before the field's name in messages, e.g. ``ranking: ``.

    Raises:
        UserError: with the field, the value and the choices.
    """
    for key, kind in get_type_hints(type(settings)).items():
        if get_origin(kind) is Literal and (value := getattr(settings, key)) not in get_args(kind):
            *most, last = map(repr, get_args(kind))
            raise UserError(f"{who}{key} is {value!r}; use {', '.join(most)} or {last}")
