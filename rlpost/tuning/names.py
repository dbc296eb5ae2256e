"""Names that users give and those that a model has: what matches nothing is refused, with what is written like it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from rlpost.errors import ConfigError

_SHOWN = 12


def not_there(
    key: str,
    entries: Iterable[str],
    names: Sequence[str],
    matches: Callable[[str, str], bool],
    what: str = "layer",
    likely: Sequence[str] = (),
) -> None:
    """Refuse entries that name nothing.

    Args:
        key: the user's key, for the message.
        entries: what was given.
        names: full names of what the model has.
        matches: whether a name (first) is meant by an entry (second).
        what: what the entries name.
        likely: names that may have been meant; none: all.

    Raises:
        ConfigError: if there are any; it names all of them, and what is written like them.
    """
    absent = [entry for entry in entries if not any(matches(name, entry) for name in names)]
    if not absent:
        return
    lost = ", ".join(map(repr, absent))
    raise ConfigError(f"{key}: {lost} {verb(absent)} no {what} of this model{hint(absent[0], likely or names)}")


def verb(entries: Sequence[Any]) -> str:
    """The verb of as many entries."""
    return "names" if len(entries) == 1 else "name"


def hint(entry: str, names: Sequence[str]) -> str:
    """What the user may have meant by an entry, as the end of a message."""
    endings = sorted({ending for name in names for ending in _endings(name)})
    like = difflib.get_close_matches(entry, endings, n=2) or difflib.get_close_matches(
        entry.rpartition(".")[2], sorted({name.rpartition(".")[2] for name in names}), n=2, cutoff=0.5
    )
    if like:
        return f"; did you mean {' or '.join(map(repr, like))}?"
    if re.search(r"[\\*+?^$|()\[\]]", entry):
        return "; a list holds names or their endings, not patterns: write each name"
    last = dict.fromkeys(name.rpartition(".")[2] for name in names if name and not name.rpartition(".")[2].isdigit())
    shown = ", ".join(list(last)[-_SHOWN:])
    return f"; there are {'…, ' if len(last) > _SHOWN else ''}{shown}"


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[at:]) for at in range(max(len(parts) - 2, 0), len(parts))]


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, GPT-2's ``Conv1D`` included."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
