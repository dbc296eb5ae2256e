"""The user's own Python as source text: read once by the driver, run under the same name in every process.

A file ``path.py`` becomes the module ``rlpost_user_path``. Modules that exist only as text here (the file is on
another machine, or in a folder that is not searched) are found by an import hook, so that their classes pickle,
tracebacks show their lines, and `inspect.getsource` works.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import linecache
import os
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_PREFIX = "rlpost_user_"
OURS = frozenset({"rlpost", "rlpost_rewards", "rlpost_verifiers"})
"""Top-level modules that are installed on every machine anyway."""


@dataclass(frozen=True, slots=True)
class SourceModule:
    """A Python module as text.

    Attributes:
        name: full module name, as in an import.
        path: absolute path it was read from, shown in tracebacks.
        source: text of the module; empty for a folder without ``__init__.py``.
        package: whether it has submodules.

    >>> SourceModule("rlpost_user_style", "/home/me/style.py", "x = 1", False).name
    'rlpost_user_style'
    """

    name: str
    path: str
    source: str
    package: bool


class _Loader(ExecutionLoader):
    def __init__(self, unit: SourceModule) -> None:
        self.unit = unit

    def get_filename(self, fullname: str) -> str:
        return self.unit.path

    def get_source(self, fullname: str) -> str:
        return self.unit.source

    def is_package(self, fullname: str) -> bool:
        return self.unit.package


class _Finder(MetaPathFinder):
    """Finds adopted modules before files on disk, so that every process runs the text that the driver read."""

    def __init__(self) -> None:
        self.units: dict[str, SourceModule] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        unit = self.units.get(fullname)
        return None if unit is None else importlib.util.spec_from_loader(fullname, _Loader(unit))


_FINDER = _Finder()


def adopt(units: Iterable[SourceModule]) -> None:
    """Make modules importable from their text; a module that was imported from another text is imported again."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    for unit in units:
        if _FINDER.units.get(unit.name) == unit:
            continue
        known = _FINDER.units.get(unit.name)
        loaded = sys.modules.get(unit.name)
        if known is not None or (loaded is not None and getattr(loaded, "__file__", None) != unit.path):
            sys.modules.pop(unit.name, None)
        _FINDER.units[unit.name] = unit
        # on this machine the file may be missing or differ: tracebacks must show the text that runs
        linecache.cache[unit.path] = (len(unit.source), None, unit.source.splitlines(keepends=True), unit.path)


def adopted(name: str) -> SourceModule | None:
    """The module of this name, if it was loaded from a file or adopted as text in this process."""
    return _FINDER.units.get(name)


def load_file(path: str) -> ModuleType:
    """Load a Python file as a module, the same object for the same text; imports are also searched in its folder.

    Args:
        path: path of the file, relative to the working directory or absolute; ``~`` is the home folder.

    Raises:
        ImportError: if there is no such file.
        Exception: any exception that the file raises.
    """
    file = Path(os.path.abspath(Path(path).expanduser()))
    if not file.is_file():
        raise ImportError(f"no file {Path(path)}" + ("" if Path(path).is_absolute() else f" in {Path.cwd()}"))
    unit = SourceModule(_module_name(file), str(file), read(file), package=False)
    adopt([unit])
    search_also(file.parent)
    return importlib.import_module(unit.name)


def search_also(folder: Path) -> None:
    """Search ``folder`` for imports, after all other folders."""
    importlib.invalidate_caches()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def place_of(error: BaseException) -> str:
    """``path:line`` at which the user's code failed.

    That is the innermost frame in a module that was loaded or adopted here, else the innermost one in a file that is
    not installed, else the outermost one outside rlpost.

    Returns:
        The place; empty if only rlpost's own code was running.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    known = {unit.path for unit in _FINDER.units.values()}
    other = [frame for frame in frames if not _is_ours(frame[0]) and "importlib" not in frame[0]]
    installed = installed_folders()
    private = [frame for frame in other if not any(Path(frame[0]).is_relative_to(folder) for folder in installed)]
    chosen = [frame for frame in frames if frame[0] in known][-1:] or private[-1:] or other[:1]
    return f"{chosen[0][0]}:{chosen[0][1]}" if chosen else ""


def at_place(error: BaseException) -> str:
    """`place_of` an error for a message, as `` at path:line``; empty if there is none."""
    place = place_of(error)
    return f" at {place}" if place else ""


def read(file: Path) -> str:
    """Text of a Python file, decoded as the file declares."""
    return importlib.util.decode_source(file.read_bytes())


def _module_name(file: Path) -> str:
    name = _PREFIX + re.sub(r"\W", "_", file.stem)
    other = _FINDER.units.get(name)
    if other is None or other.path == str(file):
        return name
    return f"{name}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"


def installed_folders() -> list[str]:
    """Folders of the standard library and of installed packages."""
    paths = sysconfig.get_paths()
    found = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return [*found, *site.getsitepackages(), site.getusersitepackages()]


def _is_ours(file: str) -> bool:
    return any(f"/{name}/" in file for name in OURS)
