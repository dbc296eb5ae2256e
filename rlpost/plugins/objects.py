"""Functions and classes that a configuration holds themselves, as ``rlpost.train({...})`` lets it.

A configuration is text: it is written to the run folder, compared and sent. So an object gets a name that stands for it
from then on. One that its module has under its own name is called ``module:name``, like any plug-in, and its source is
sent. Any other (a function of a notebook or script, a lambda, a partial) is called ``object:name`` and sent by value.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Mapping
from typing import Any

PREFIX = "object:"

_OBJECTS: dict[str, Any] = {}
"""Objects by name, in the process that was given them or that they were sent to."""


def named_objects(value: Any, path: tuple[str, ...] = ()) -> Any:
    """A copy of a configuration's mapping in which every function and class is replaced by its name.

    A function in the list of rewards becomes a reward of its own: ``rewards=[f]`` is ``rewards=[{"name": f}]``.

    >>> named_objects({"scoring": {"rewards": [len]}})
    {'scoring': {'rewards': [{'name': 'builtins:len'}]}}
    """
    if isinstance(value, Mapping):
        return {key: named_objects(part, (*path, str(key))) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [named_objects(part, (*path, "")) for part in value]
    if not callable(value):
        return value
    return {"name": _name(value)} if path == ("scoring", "rewards", "") else _name(value)


def find(name: str) -> Any:
    """The object of this name; None if there is none in this process."""
    return _OBJECTS.get(name)


def adopt(objects: Mapping[str, Any]) -> None:
    """Know these objects by their names."""
    _OBJECTS.update(objects)


def _name(value: Any) -> str:
    path = f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"
    if _importable(path, value):
        return path
    short = getattr(value, "__name__", None) or type(value).__name__
    short = short.strip("<>")
    number = 1
    while True:
        name = f"{PREFIX}{short}" if number == 1 else f"{PREFIX}{short}_{number}"
        if _OBJECTS.setdefault(name, value) is value:
            return name
        number += 1


def _importable(path: str, value: Any) -> bool:
    """Whether another process finds the same object under its name; the main module is another one there."""
    module, _, attribute = path.partition(":")
    if module in ("__main__", "None") or "<" in attribute:
        return False
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module)) is value
    except (ImportError, AttributeError):
        return False
