"""Cache of verdicts: bounded in memory, and optionally in a file that later runs read."""

from __future__ import annotations

import json
import sqlite3
import threading
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlpost.errors import UserError
from rlpost.types import Verdict

_FILE = "verdicts.sqlite"
_WAIT_SECONDS = 30.0
_KEPT = ("outcome", "score", "reason", "assurance", "evidence", "seconds", "cpu_seconds", "backend")


class VerdictCache:
    """Verdicts by content key. Threads may share it; the file may also be shared by processes of one machine.

    Undecided verdicts are never kept: they say something about the verifier at that moment, not about the answer.

    Args:
        capacity: number of verdicts kept in memory, the most recently used ones; 0 keeps none.
        folder: folder of an SQLite file that keeps all of them as well (not for network file systems); None: no file.

    Raises:
        UserError: for a negative capacity, or a folder whose file cannot be used.
    """

    def __init__(self, capacity: int, folder: Path | None = None) -> None:
        if capacity < 0:
            raise UserError(f"cache_size is {capacity}; give 0 for no cache, or the number of verdicts to keep")
        self._capacity = capacity
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._file = None if folder is None else VerdictFile(folder)

    def get(self, key: str) -> Verdict | None:
        """The verdict cached under ``key``, marked as cached and with zero times; None if there is none."""
        with self._lock:
            verdict = self._verdicts.get(key)
            if verdict is None and self._file is not None:
                verdict = self._file.get(key)
                if verdict is not None:
                    self._remember(key, verdict)
            if verdict is None:
                return None
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
        return as_cached(verdict)

    def put(self, key: str, verdict: Verdict) -> None:
        """Keep ``verdict`` unless it is undecided; in memory the least recently used one is evicted."""
        if verdict.outcome == "undecided":
            return
        with self._lock:
            self._remember(key, verdict)
            if self._file is not None:
                self._file.put(key, verdict)

    def close(self) -> None:
        """Close the file; repeated calls do nothing."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _remember(self, key: str, verdict: Verdict) -> None:
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._capacity:
            self._verdicts.popitem(last=False)

    def __len__(self) -> int:
        return len(self._verdicts)


class VerdictFile:
    """Decided verdicts in an SQLite file; the caller holds the lock.

    It stores JSON text in its own table instead of using diskcache, which unpickles rows marked as pickles (5.6.3, also
    with ``JSONDisk``): whoever can write the file could run code in every scoring worker.

    A row that does not read as a decided verdict counts as absent and is written again. If the file fails during the
    run (a full disk), a warning is given and the run goes on without it: the file only saves time.

    Args:
        folder: folder of the file, created readable by its owner only if it does not exist.

    Raises:
        UserError: if the file is not such a cache or cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._rows: sqlite3.Connection | None = sqlite3.connect(
                self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._rows.execute("PRAGMA journal_mode=WAL")
            self._rows.execute("PRAGMA synchronous=NORMAL")
            self._rows.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cache_dir {str(folder)!r} cannot be used ({error}); give another, or delete {_FILE}"
            ) from None

    def get(self, key: str) -> Verdict | None:
        """The verdict under ``key``; None if there is none or it cannot be read."""
        rows = self._ask("SELECT verdict FROM verdicts WHERE key = ?", key)
        return _read(rows[0][0]) if rows else None

    def put(self, key: str, verdict: Verdict) -> None:
        """Write a decided verdict."""
        row = json.dumps({name: getattr(verdict, name) for name in _KEPT}, default=dict)
        self._ask("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", key, row)

    def close(self) -> None:
        """Close the file."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _ask(self, question: str, *values: str) -> list[Any]:
        if self._rows is None:
            return []
        try:
            return self._rows.execute(question, values).fetchall()
        except sqlite3.Error as error:
            warnings.warn(f"verdicts are no longer kept in {self._path}: {error}", RuntimeWarning, stacklevel=4)
            self.close()
            return []


def as_cached(verdict: Verdict) -> Verdict:
    """The same verdict for an equal item: marked as cached, with zero times."""
    return replace(verdict, cached=True, seconds=0.0, cpu_seconds=0.0, queued_seconds=0.0)


def _read(row: str) -> Verdict | None:
    try:
        fields = json.loads(row)
        verdict = Verdict(**{name: fields[name] for name in _KEPT})
    except (ValueError, KeyError, TypeError):
        return None
    decided = {"accepted": 1.0, "rejected": 0.0}
    return verdict if decided.get(verdict.outcome) == verdict.score and isinstance(verdict.evidence, dict) else None
