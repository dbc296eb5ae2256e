"""Keys that were renamed: the old ones are understood for one release, with a warning that names the new one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rlpost.errors import ConfigError

_log = logging.getLogger(__name__)

RENAMED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("data", "leaks"): ("data", "contamination"),
}
"""Old path to new path, within one section."""


def rename_keys(tree: dict[str, Any], origins: dict[tuple[str, ...], str], place: str) -> None:
    """Replace old keys of a configuration tree by the new ones, in place; one warning for each.

    Args:
        tree: sections as nested mappings.
        origins: origin of each value by its path; paths are renamed here too.
        place: file or other source of the tree, for messages.

    Raises:
        ConfigError: if an old key and its new one are both given.
    """
    for old, new in RENAMED.items():
        section = _section(tree, old[:-1])
        if section is None or old[-1] not in section:
            continue
        where = origins.get(old, place)
        if new[-1] in section:
            raise ConfigError(
                f"{where}: {'.'.join(old)} is the old name of {'.'.join(new)}; both are given, keep the latter"
            )
        _log.warning("%s: %s is now called %s; rename it", where, ".".join(old), ".".join(new))
        section[new[-1]] = section.pop(old[-1])
        for path in [path for path in origins if path[: len(old)] == old]:
            origins[(*new, *path[len(old) :])] = origins.pop(path)


def renamed_override(path: tuple[str, ...], value: Any, place: str) -> tuple[tuple[str, ...], Any]:
    """The current path of an override, and its value with current keys; an old name gives a warning.

    Raises:
        ConfigError: if the value holds an old key and its new one.
    """
    path = _new_path(path, place)
    if isinstance(value, dict):
        tree: Any = value
        for key in reversed(path):
            tree = {key: tree}
        rename_keys(tree, {}, place)
    return path, value


def _new_path(path: tuple[str, ...], place: str) -> tuple[str, ...]:
    for old, new in RENAMED.items():
        if path[: len(old)] == old:
            _log.warning("%s: %s is now called %s; rename it", place, ".".join(old), ".".join(new))
            return (*new, *path[len(old) :])
    return path


def _section(tree: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    here: Any = tree
    for key in path:
        here = here.get(key) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else None
