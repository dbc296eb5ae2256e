"""What differs between the configuration of a run folder and the one it is resumed with, and what that means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.config.load import flatten, from_dict
from rlpost.config.schema import RunConfig
from rlpost.config.section import OnResume, Section
from rlpost.config.strict import members

UNSET = "(not set)"
"""Stands for the value of a key that one of the two configurations does not have."""

_METHODS = ("lora", "lora_xs", "subnetwork")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """A key with its stored and its new value.

    Attributes:
        path: the key.
        old: value in the run folder; `UNSET` if the key is not there.
        new: value that the run is resumed with.
        effect: what the new value means to the run; see `rlpost.config.section.OnResume`.

    >>> str(Difference(("run", "seed"), 17, 18, "asks"))
    'run.seed: 17 → 18'
    """

    path: tuple[str, ...]
    old: Any
    new: Any
    effect: OnResume

    @property
    def key(self) -> str:
        """The key as it is written on the command line."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.old)} → {shown(self.new)}"


def shown(value: Any) -> str:
    """A value as it is written in YAML, cut if it is long.

    >>> shown(0.001), shown(None), shown(["a"])
    ('0.001', 'null', '["a"]')
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def differences(stored: RunConfig, new: RunConfig) -> list[Difference]:
    """The keys whose values differ, in the order of the schema."""
    before, after = flatten(stored), flatten(new)
    found: list[Difference] = []
    for path in dict.fromkeys([*after, *before]):
        old, now = before.get(path, UNSET), after.get(path, UNSET)
        if old == now or _is_prefix(path, before if old is UNSET else after, old is UNSET or now is UNSET):
            continue
        if path == ("model", "path") and _same_folder(old, now):
            continue
        found.append(Difference(path, old, now, effect(path, stored, new)))
    return found


def effect(path: Sequence[str], stored: RunConfig, new: RunConfig) -> OnResume:
    """What a difference at a key means; settings that neither configuration uses are free."""
    name = ".".join(path)
    if path[0] == "tuning" and path[1] in _METHODS and path[1] not in (stored.tuning.method, new.tuning.method):
        return "free"
    if path[:2] == ("optimizer", "lowrank") and "lowrank" not in (stored.optimizer.name, new.optimizer.name):
        return "free"
    if name == "run.steps" and new.optimizer.schedule != "constant":
        return "asks"  # the learning rate's course is a share of the steps
    if path[0] == "learner" and declared(path) == "fixed" and not _other_shards(name, stored, new):
        return "free"
    return declared(path)


def declared(path: Sequence[str]) -> OnResume:
    """The class that the schema declares for a key, or for the setting that it is part of.

    Raises:
        KeyError: for a key that the schema does not have or does not classify.
    """
    model: type[Section] | None = RunConfig
    found: OnResume | None = None
    for key in path:
        if model is None or key not in model.model_fields:
            break
        found = model.ON_RESUME[key]
        parts = members(model.model_fields[key].annotation)
        model = next((part for part in parts if isinstance(part, type) and issubclass(part, Section)), None)
    if found is None:
        raise KeyError(".".join(path))
    return found


def with_values(config: RunConfig, values: Mapping[tuple[str, ...], Any]) -> RunConfig:
    """A configuration with other values at some keys, validated again.

    Raises:
        ConfigError: if they do not fit the others.
    """
    tree = config.model_dump(mode="json")
    for path, value in values.items():
        here = tree
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = value
    return from_dict(tree)


def _other_shards(name: str, stored: RunConfig, new: RunConfig) -> bool:
    """Whether a difference of the learner means other files in its checkpoint; `rlpost.loop.resume` reads those."""
    if name == "learner.engine":
        return stored.learner_engine != new.learner_engine
    if stored.learner_engine == new.learner_engine == "torch":
        return False
    if name == "learner.workers":
        return bool(stored.zero_stage or new.zero_stage)
    return stored.zero_stage != new.zero_stage


def _is_prefix(path: tuple[str, ...], other: Mapping[tuple[str, ...], Any], one_sided: bool) -> bool:
    """Whether the other configuration has keys below this one, which then say what differs."""
    return one_sided and any(len(key) > len(path) and key[: len(path)] == path for key in other)


def _same_folder(old: Any, new: Any) -> bool:
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    return Path(old).expanduser().resolve() == Path(new).expanduser().resolve()
