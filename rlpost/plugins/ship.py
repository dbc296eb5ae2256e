"""The user's own plug-ins, such as rewards and environments: looked up once, in the driver, and sent as source.

Sent is the source of a ``path.py`` or ``module``, and of everything it imports from its own folder or the working
directory. So a plug-in runs on machines without these files, and every actor runs what the driver read. Installed
packages and data files are not sent; they have to be on every machine that runs the plug-in.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.plugins import objects, registry, usercode
from rlpost.plugins.usercode import SourceModule

_FILE = re.compile(r"([^:]+\.py):[A-Za-z_][\w.]*")
_MODULE = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_MOST_BYTES = 16 * 2**20
"""Limit on the source sent to every worker; anything larger is a library, to be installed there."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """Plug-ins as plain data, to be sent to actors.

    Attributes:
        modules: source of every module.
        targets: meaning of the names in the configuration, from (kind, name) to ``module:attribute``; the kind ``""``
            matches any.
        objects: functions and classes that the configuration was given themselves, by name; see
            `rlpost.plugins.objects`.

    >>> Shipped().modules
    ()
    """

    modules: tuple[SourceModule, ...] = ()
    targets: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    objects: Mapping[str, Any] = field(default_factory=dict[str, Any])


def ship(config: RunConfig) -> Shipped:
    """Load every plug-in that a configuration names, and pack its source. The driver calls it before anything starts.

    Relative paths start at the working directory, ``~`` is the home folder.

    Raises:
        UserError: for an unknown name, a file or module that cannot be imported (with the user's line), or a missing
            attribute.
    """
    modules: dict[str, SourceModule] = {}
    targets: dict[tuple[str, str], str] = {}
    given: dict[str, Any] = {}
    for kind, name in named(config):
        if name.startswith(objects.PREFIX):
            given[name] = registry.resolve(kind or "rewards", name)
            continue
        module, attribute = registry.locate(kind or "rewards", name)
        targets[kind, name] = f"{module.__name__}:{attribute}"
        modules |= {unit.name: unit for unit in closure(module)}
    return Shipped(tuple(modules.values()), targets, given)


def install(shipped: Shipped) -> None:
    """Make shipped plug-ins loadable by their names. An actor calls it before it builds anything."""
    usercode.adopt(shipped.modules)
    objects.adopt(shipped.objects)
    registry.adopt(shipped.targets)


def named(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything in a configuration that is not built in.

    That includes every text of the form ``path.py:attribute`` or ``module:attribute`` among the arguments of verifier,
    environment, constraint, rewards, loss and advantage, if its file or module exists; its kind is ``""``.
    """
    scoring, algorithm = config.scoring, config.algorithm
    names = [
        *([("verifiers", scoring.verifier)] if scoring.verifier is not None else []),
        *(("rewards", spec.name) for spec in scoring.rewards),
        ("losses", algorithm.loss),
        ("advantages", algorithm.advantage),
        ("engines", config.rollout.engine),
        *([("environments", config.environment.name)] if config.environment is not None else []),
        *([("constraints", config.rollout.constraint.name)] if config.rollout.constraint is not None else []),
    ]
    yield from ((kind, name) for kind, name in names if name not in registry.BUILTIN[kind])
    given = [scoring.verifier_args, *(spec.arguments for spec in scoring.rewards)]
    given += [config.environment.args] if config.environment is not None else []
    given += [config.rollout.constraint.arguments] if config.rollout.constraint is not None else []
    for arguments in (*given, algorithm.loss_args, algorithm.advantage_args):
        yield from (("", text) for text in _texts(arguments) if _names_code(text))


def closure(module: ModuleType) -> list[SourceModule]:
    """The module with everything it imports, directly or not, from its own root folder or the working directory.

    Installed modules are left out (they have to be installed on every machine), and so are modules whose names are
    made at run time.

    Raises:
        UserError: if the source is larger than 16 MiB.
    """
    roots = {str(Path.cwd()), *_root(module)}
    found: dict[str, SourceModule] = {}
    todo = [module.__name__]
    while todo:
        name = todo.pop()
        unit = None if name in found else _own(name, roots)
        if unit is None:
            continue
        found[name] = unit
        todo += _imports(unit)
        if sum(len(each.source) for each in found.values()) > _MOST_BYTES:
            raise UserError(
                f"{module.__name__} imports more than {_MOST_BYTES >> 20} MiB of source from "
                f"{', '.join(sorted(roots))}; install it as a package on every machine"
            )
    return [found[name] for name in sorted(found)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _names_code(text: str) -> bool:
    if text.startswith(objects.PREFIX):
        return objects.find(text) is not None
    if match := _FILE.fullmatch(text):
        return Path(match[1]).expanduser().is_file()
    if match := _MODULE.fullmatch(text):
        usercode.search_also(Path.cwd())
        try:
            return importlib.util.find_spec(match[1].partition(".")[0]) is not None
        except ValueError:  # a module without a specification, e.g. __main__
            return False
    return False


def _root(module: ModuleType) -> list[str]:
    """The folder that contains a module's top-level package or file."""
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    file = getattr(top, "__file__", None)
    if file is not None:
        return [str(Path(file).parent.parent if hasattr(top, "__path__") else Path(file).parent)]
    return [str(Path(folder).parent) for folder in getattr(top, "__path__", [])]


def _own(name: str, roots: Collection[str]) -> SourceModule | None:
    """The source of a module below ``roots``; None if it is installed, built in, part of rlpost or absent."""
    if (known := usercode.adopted(name)) is not None:
        return known
    top, dot, _ = name.partition(".")
    if not top or top in usercode.OURS or top in sys.builtin_module_names or (dot and _own(top, roots) is None):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # a parent package that fails to import also fails in the plug-in, unless it handles that
        return None
    if spec is None:
        return None
    package = spec.submodule_search_locations is not None
    if spec.origin is None and package:
        folder = next(iter(spec.submodule_search_locations or ()), "")
        return SourceModule(name, f"{folder}/__init__.py", "", True) if _below(folder, roots) else None
    if spec.origin is None or not spec.origin.endswith(".py") or not _below(spec.origin, roots):
        return None
    return SourceModule(name, os.path.abspath(spec.origin), usercode.read(Path(spec.origin)), package)


def _below(path: str, roots: Collection[str]) -> bool:
    file = Path(os.path.abspath(path))
    return any(file.is_relative_to(root) for root in roots) and not any(
        file.is_relative_to(folder) for folder in usercode.installed_folders()
    )


def _imports(unit: SourceModule) -> list[str]:
    """Every module name that a source may import, parents first; names that are no modules are ignored later."""
    try:
        tree = ast.parse(unit.source)
    except SyntaxError:
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, unit)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    parts = [name.split(".") for name in [unit.name, *names]]
    return [".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)]


def _absolute(node: ast.ImportFrom, unit: SourceModule) -> str:
    if not node.level:
        return node.module or ""
    levels = unit.name.split(".")
    kept = levels[: len(levels) - node.level + unit.package]
    return ".".join([*kept, *([node.module] if node.module else [])])
