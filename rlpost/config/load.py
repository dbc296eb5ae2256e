"""YAML plus dotted overrides into a `RunConfig`, remembering where each value came from."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rlpost.config.aliases import rename_keys, renamed_override
from rlpost.config.checks import violations
from rlpost.config.explain import explain
from rlpost.config.recipes import RECIPES
from rlpost.config.schema import RunConfig
from rlpost.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: ``off`` and ``no`` are words, ``1e-4`` is a number, dates are text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "int", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would otherwise read as something else."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

Origin = Mapping[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and the origin of each of its leaves: ``default``, ``file:line``, ``override`` or a recipe."""

    config: RunConfig
    origins: Origin


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a YAML file, apply overrides and validate.

    Args:
        path: a YAML file. Its key ``extends`` names a base file, relative to it: mappings are merged key by key,
            everything else is replaced.
        overrides: ``section.key=value`` items; values are read as YAML.

    Raises:
        ConfigError: one line with the place, the value and the remedy.
    """
    tree, origins = _read_chain(Path(path), ())
    return _finish(tree, origins, overrides)


@dataclass(frozen=True, slots=True)
class Examined:
    """A configuration with everything that is wrong with it.

    Attributes:
        config: the configuration, with defaults in place of wrong keys; None if too little is left of it.
        faults: a line for every wrong key, and for every rule between keys that is broken.
        wrong: the wrong keys.
    """

    config: RunConfig | None
    faults: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def examine(path: str | Path, overrides: Sequence[str] = ()) -> Examined:
    """As `load`, with a line for every fault instead of an error for the first.

    Raises:
        ConfigError: if the file or an override cannot be read.
    """
    tree, origins = _read_chain(Path(path), ())
    return _examined(tree, origins, overrides)


def numbered(faults: Sequence[str]) -> list[str]:
    """A numbered line per fault.

    >>> numbered(["a", "b"])
    ['fault 1 of 2: a', 'fault 2 of 2: b']
    """
    return [f"fault {number} of {len(faults)}: {text}" for number, text in enumerate(faults, 1)]


def from_dict(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """A configuration from Python values, validated like a file.

    Raises:
        ConfigError: as `load`.
    """
    origins: dict[tuple[str, ...], str] = {}
    plain = _plain(tree)
    _note(plain, (), "given", origins)
    rename_keys(plain, origins, "configuration")
    return _finish(plain, origins, overrides).config


def dump(config: RunConfig) -> str:
    """The resolved configuration as YAML that `load` reads back to an equal one."""
    tree = config.model_dump(mode="json")
    # written as they are, these would be read back as line breaks and folded
    plain = not any(mark in json.dumps(tree, ensure_ascii=False) for mark in "\x85\u2028\u2029")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=plain)


def flatten(config: RunConfig) -> dict[tuple[str, ...], Any]:
    """Every leaf of a configuration by its path."""
    leaves: dict[tuple[str, ...], Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, (*path, str(key)))
        else:
            leaves[path] = value

    walk(config.model_dump(mode="json"), ())
    return leaves


def origin_of(origins: Origin, path: tuple[str, ...]) -> str:
    """Where a leaf came from; the origin of a mapping given as a whole holds for all its leaves."""
    for end in range(len(path), 0, -1):
        if path[:end] in origins:
            return origins[path[:end]]
    return "default"


def _finish(tree: dict[str, Any], origins: dict[tuple[str, ...], str], overrides: Sequence[str]) -> Loaded:
    """The configuration, or a ConfigError with the first fault and the number of the others."""
    found = _examined(tree, origins, overrides)
    if found.config is None or found.faults:
        more = f" (and {len(found.faults) - 1} more)" if found.faults[1:] else ""
        raise ConfigError(f"{found.faults[0]}{more}")
    return Loaded(found.config, origins)


def _examined(tree: dict[str, Any], origins: dict[tuple[str, ...], str], overrides: Sequence[str]) -> Examined:
    spelled: dict[tuple[str, ...], tuple[str, ...]] = {}
    for text in overrides:
        given, value = parse_override(text)
        path, value = renamed_override(given, value, f"override {text}")
        if spelled.setdefault(path, given) != given:
            both = " and ".join(sorted(".".join(name) for name in (given, spelled[path])))
            raise ConfigError(f"override {text}: {both} are the same setting; keep {'.'.join(path)}")
        _set(tree, path, value, text)
        _note(value, path, f"override {text}", origins)
    _drop_empty_sections(tree)
    _apply_recipe(tree, origins)
    wrong: dict[tuple[str, ...], str] = {}
    try:
        config: RunConfig | None = RunConfig.model_validate(tree)
    except ValidationError as error:
        wrong = explain(error, tree)
        config = _without(tree, wrong)
    lines = [_at(origin_of(origins, path), line) for path, line in wrong.items()]
    for line in violations(config) if config is not None else ():
        path = tuple(line.partition(":")[0].split("."))
        if path not in wrong and path[:1] not in wrong:
            lines.append(_at(origin_of(origins, path), line))
    return Examined(config, tuple(lines), tuple(map(".".join, wrong)))


def _without(tree: dict[str, Any], wrong: Iterable[tuple[str, ...]]) -> RunConfig | None:
    """What is left of a configuration without its wrong keys; None if that is none."""
    left = copy.deepcopy(tree)
    for path in wrong:
        here: Any = left
        for key in path[:-1]:
            here = here.get(key) if isinstance(here, dict) else None
        if isinstance(here, dict):
            here.pop(path[-1], None)
    try:
        return RunConfig.model_validate(left)
    except ValidationError:
        return None


def _at(place: str, line: str) -> str:
    return line if place in ("default", "given") else f"{place}: {line}"


def _drop_empty_sections(tree: dict[str, Any]) -> None:
    """A section without keys is written ``optimizer:`` in YAML, which reads as null and means the defaults."""
    for key in [key for key, value in tree.items() if value is None]:
        field = RunConfig.model_fields.get(key)
        if field is not None and field.default is not None:
            del tree[key]


def _read_chain(path: Path, below: tuple[Path, ...]) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """A file merged over the one it extends; ``below`` holds the files that extend it."""
    if path.resolve() in below:
        raise ConfigError(f"{path}: extends itself by way of {below[-1]}; break the circle")
    tree, origins = _read(path)
    if "extends" not in tree:
        return tree, origins
    base = tree.pop("extends")
    place = origins.pop(("extends",))
    if not isinstance(base, str):
        raise ConfigError(f"{place}: extends {base!r}; give the path of one YAML configuration")
    lower, lower_origins = _read_chain(path.parent / base, (*below, path.resolve()))
    _merge(lower, tree, (), lower_origins)
    return lower, {**lower_origins, **origins}


def _merge(
    into: dict[str, Any], over: Mapping[str, Any], at: tuple[str, ...], origins: dict[tuple[str, ...], str]
) -> None:
    """Merge ``over`` into ``into``, dropping the origins of replaced values."""
    for key, value in over.items():
        path, known = (*at, key), into.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            _merge(known, value, path, origins)
            continue
        into[key] = value
        for place in [place for place in origins if place[: len(path)] == path]:
            del origins[place]


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a YAML configuration") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a UTF-8 YAML file") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend the syntax") from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:1: a configuration is a mapping of sections, got {node.tag.rpartition(':')[2]}")
    origins: dict[tuple[str, ...], str] = {}
    try:
        tree = _construct(node, (), path, origins)
        rename_keys(tree, origins, str(path))
        return tree, origins
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend the value") from None


def _construct(node: yaml.Node, at: tuple[str, ...], path: Path, origins: dict[tuple[str, ...], str]) -> Any:
    """Python values of a YAML node, noting the line of every key and refusing a key given twice."""
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            place = f"{path}:{key_node.start_mark.line + 1}"
            if key in values:
                raise ConfigError(f"{place}: key {'.'.join((*at, key))!r} is given twice; keep one")
            origins[(*at, key)] = place
            values[key] = _construct(value_node, (*at, key), path, origins)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*at, str(i)), path, origins) for i, item in enumerate(node.value)]
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Path and value of ``section.key=value``.

    Raises:
        ConfigError: if it has another form.

    >>> parse_override("run.steps=3")
    (('run', 'steps'), 3)
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {text!r}: write it as section.key=value")
    try:
        return tuple(key.strip().split(".")), yaml.load(value, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"override {text!r}: the value is not valid YAML; quote it") from None


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any, text: str) -> None:
    here = tree
    for key in path[:-1]:
        inner = here.setdefault(key, {})
        if inner is None:
            inner = here[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"override {text!r}: {key!r} is a value, not a section")
        here = inner
    here[path[-1]] = value


def _apply_recipe(tree: dict[str, Any], origins: dict[tuple[str, ...], str]) -> None:
    section = tree.get("algorithm")
    recipe = section.get("recipe") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(recipe, str) or recipe not in RECIPES:
        return
    for key, value in RECIPES[recipe].items():
        if isinstance(value, dict):
            given = section.get(key)
            if given is None or isinstance(given, dict):
                section[key] = {**value, **(given or {})}
                for inner in value:
                    origins.setdefault(("algorithm", key, inner), f"recipe {recipe}")
        elif key not in section:
            section[key] = value
            origins[("algorithm", key)] = f"recipe {recipe}"


def _note(value: Any, path: tuple[str, ...], origin: str, origins: dict[tuple[str, ...], str]) -> None:
    if path:
        origins[path] = origin
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _note(inner, (*path, str(key)), origin, origins)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
