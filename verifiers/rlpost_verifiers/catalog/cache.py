"""Folders that are made once from a file's content and reused by every process of a node."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import xxhash

from rlpost.errors import first_line
from rlpost.paths import cache_folder

_log = logging.getLogger("rlpost")
_T = TypeVar("_T")

_PATIENCE_S = 900.0
"""A process waits this long for another one that makes the same folder, then makes its own."""
_POLL_S = 0.1
_CODE = (
    "names.py",
    "cells.py",
    "mojibake.py",
    "files.py",
    "building.py",
    "store.py",
    "items.py",
    "grams.py",
    "prefixes.py",
    "sequels.py",
    "shortened.py",
)
"""Files whose rules decide what the folders hold."""


def content_key(path: Path, settings: str) -> str:
    """Hash of a file's content, of settings and of the code that reads catalogs."""
    found = xxhash.xxh3_128(settings.encode())
    here = Path(__file__).parent
    for part in (path, *(here / name for name in _CODE)):
        with part.open("rb") as opened:
            while block := opened.read(1 << 22):
                found.update(block)
    return found.hexdigest()


def made_once(name: str, make: Callable[[Path], None], read: Callable[[Path], _T], kept: bool = True) -> _T:
    """What ``read`` finds in the folder ``catalogs/name`` of the cache, made by ``make`` if it is not there.

    The folder is made beside its place and moved there as a whole, so that no process sees half of one; of several
    processes one makes it and the others wait. A damaged folder is made again. Where the cache cannot be written, the
    folder is temporary and serves this process alone.

    Args:
        name: name of the folder, which tells its content.
        make: fills an empty folder.
        read: opens what it holds; it may keep its files mapped.
        kept: whether the folder is kept for other processes; False: it is temporary.
    """
    if not kept:
        return _made_anew(make, read)
    place = cache_folder() / "catalogs" / name
    if place.is_dir():
        try:
            return read(place)
        except (OSError, ValueError, KeyError) as error:
            _log.warning("%s: damaged (%s); made again", place, first_line(error))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place.with_name(f"{name}.lock")):
            if place.is_dir():  # made while this process waited, or damaged
                try:
                    return read(place)
                except (OSError, ValueError, KeyError):
                    shutil.rmtree(place)
            part = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=place.parent))
            try:
                make(part)
                os.replace(part, place)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        return read(place)
    except OSError as error:
        _log.warning("%s: cannot be written (%s); this process keeps its own", place, first_line(error))
    return _made_anew(make, read)


def _made_anew(make: Callable[[Path], None], read: Callable[[Path], _T]) -> _T:
    with tempfile.TemporaryDirectory(prefix="rlpost-catalog-") as folder:
        make(Path(folder))
        return read(Path(folder))  # mapped files stay readable without their names


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold the lock of a file; after `_PATIENCE_S` go on without. The system releases it when its process ends."""
    until = time.monotonic() + _PATIENCE_S
    with file.open("a") as opened:
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    _log.warning("%s: held for more than %.0f s; not waited for any longer", file, _PATIENCE_S)
                    break
                time.sleep(_POLL_S)
        yield
