"""Every key of the schema with every wrong type and boundary: accepted, or one line that names the key.

``-m long`` takes all cases through YAML too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlpost.config.differences import differences
from rlpost.config.hints import keys_of, section_at
from rlpost.config.load import _Dumper, dump, examine, flatten, from_dict, load
from rlpost.config.schema import RunConfig
from rlpost.errors import ConfigError

BASE: dict[str, Any] = {
    "model": {"path": "m"},
    "data": {"train": "a.jsonl", "eval": "b.jsonl", "curriculum": {"outcomes": "o.jsonl"}},
    "sft": {"train": "a.jsonl"},
    "environment": {"name": "e.py:E"},
    "scoring": {"verifier": "function", "rewards": [{"name": "outcome"}]},
}
VALUES: tuple[Any, ...] = (
    True, False, "text", "", "1", "1e-5", "nan", [], [1], ["a"], [None], [[1]], {}, {"a": 1}, {"a": {"b": None}}, None,
    math.nan, math.inf, -math.inf, -1, -1.5, 0, -0.0, 1, 2, 1.5, 10**30, -(10**30), 1e308, 5e-324, "\x00", "∀" * 500,
)  # fmt: skip
UNKNOWN = ("typo", "learning_rate", "num_generations", "_private", "model_config", "ON_RESUME", "__class__", "0", "")


def paths(path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key in keys_of(path):
        yield (*path, key)
        if section_at((*path, key)) is not None:
            yield from paths((*path, key))


def sections() -> list[tuple[str, ...]]:
    return [(), *(path for path in paths() if section_at(path) is not None)]


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(BASE)
    if path[:2] == ("model", "scratch"):
        del tree["model"]["path"]
    here = tree
    for key in path[:-1]:
        here = here.setdefault(key, {})
    here[path[-1]] = value
    return tree


def answered(tree: dict[str, Any], path: tuple[str, ...], base: RunConfig) -> bool:
    """Whether a tree is accepted; if not, the refusal is one line of ours that names the key or one that it clashes with."""
    try:
        config = from_dict(tree)
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1500
        assert ".".join(path) in message or path[-1] in message or path[0] + "." in message, message
        for word in ("RewardSpec", "instance of", "Section", "NoneType", "union", "pydantic", "valid dictionary"):
            assert word not in message, message
        return False
    assert flatten(config)
    assert isinstance(differences(base, config), list)
    return True


def cases() -> list[tuple[tuple[str, ...], Any]]:
    return [(path, value) for path in paths() for value in VALUES]


def test_the_base_is_accepted() -> None:
    assert from_dict(BASE)


def test_all_keys_and_values_are_answered_in_one_line() -> None:
    base = from_dict(BASE)
    found = [answered(with_value(path, value), path, base) for path, value in cases()]
    assert len(found) > 7000
    assert 700 < sum(found) < 1500  # neither is everything refused nor everything taken


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_key_is_named_in_every_section(name: str) -> None:
    base = from_dict(BASE)
    for section in sections():
        if name in keys_of(section) or section == ("model", "scratch"):
            continue
        tree = with_value((*section, name), 1)
        assert not answered(tree, (*section, name), base)


@pytest.mark.parametrize("value", [True, math.nan, "text", [1], {"a": 1}, -math.inf])
def test_every_number_refuses_what_is_none(value: Any) -> None:
    """Keys that are numbers by their default or their bounds."""
    defaults = flatten(from_dict(BASE))
    numbers = [
        path
        for path, default in defaults.items()
        if isinstance(default, (int, float)) and not isinstance(default, bool)
    ]
    assert len(numbers) > 60
    for path in numbers:
        with pytest.raises(ConfigError, match=r"expected .*, got"):
            from_dict(with_value(path, value))


@pytest.mark.long
def test_a_file_is_answered_as_python_values_are(tmp_path: Path) -> None:
    """What YAML reads back is refused or taken as the Python value is, and what is taken survives dump and load."""
    base, file, again = from_dict(BASE), tmp_path / "run.yaml", tmp_path / "again.yaml"
    for path, value in cases():
        tree = with_value(path, value)
        accepted = answered(tree, path, base)
        file.write_text(yaml.dump(tree, Dumper=_Dumper), encoding="utf-8")
        found = examine(file)
        assert not any("\n" in line for line in found.faults)
        assert accepted <= (not found.faults)
        if found.config is not None and not found.faults:
            again.write_text(dump(found.config), encoding="utf-8")
            assert dump(load(again).config) == dump(found.config)
