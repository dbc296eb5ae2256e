"""The only place that imports ``lean_dojo``, made safe for machines without a network.

LeanDojo 4.20 logs in to api.github.com while it is imported if ``GITHUB_ACCESS_TOKEN`` is set, so a machine that is
offline, or a token that has expired, makes the import fail. It also starts ``git`` and imports ray, which is why
nothing here imports it before it is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from rlpost.errors import MissingPackageError

if TYPE_CHECKING:
    from lean_dojo import (  # noqa: F401 - for annotations elsewhere
        LeanError,
        ProofFinished,
        TacticState,
        TracedFile,
        TracedTheorem,
    )

    TacticResult = TacticState | ProofFinished | LeanError

TOKEN = "GITHUB_ACCESS_TOKEN"
_OLDEST_GIT = (2, 25)
_GIT_REMEDY = "LeanDojo needs git 2.25 or newer on PATH: install it, e.g. apt-get install git"
# Environment variables belong to the whole process: a second import at the same time would restore the hidden value.
_LOCK = threading.Lock()


def import_lean_dojo() -> ModuleType:
    """The package lean_dojo; importing it contacts no server, with or without ``GITHUB_ACCESS_TOKEN``.

    The token is neither checked nor printed. LeanDojo still uses it for the requests it makes later.

    Raises:
        MissingPackageError: if lean-dojo or git is absent or cannot be used; the message says what to install.
    """
    with _LOCK:
        if "lean_dojo" not in sys.modules:
            if importlib.util.find_spec("lean_dojo") is None:
                raise MissingPackageError("LeanDojo is not installed; run: pip install 'rlpost[dojo]'")
            check_git()
            _import_quietly()
        return sys.modules["lean_dojo"]


def check_git() -> None:
    """Make sure that ``git`` is installed and new enough, which LeanDojo asserts without saying what to do.

    Raises:
        MissingPackageError: if it is not.
    """
    git = shutil.which("git")
    if git is None:
        raise MissingPackageError(f"git was not found; {_GIT_REMEDY}")
    try:
        done = subprocess.run([git, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingPackageError(f"{git} does not run ({error}); {_GIT_REMEDY}") from None
    match = re.search(r"git version (\d+)\.(\d+)", done.stdout)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST_GIT:
        raise MissingPackageError(f"{git} reports {(done.stdout or done.stderr).strip()!r}; {_GIT_REMEDY}")


def _import_quietly() -> None:
    with _without_token() as token:
        try:
            importlib.import_module("lean_dojo")
        except ImportError as error:
            raise MissingPackageError(
                f"LeanDojo cannot be imported ({error}); run: pip install --force-reinstall lean-dojo"
            ) from error
        if token:
            # Creating a client contacts no server; LeanDojo uses this one wherever it needs GitHub.
            github = importlib.import_module("github")
            lean = importlib.import_module("lean_dojo.data_extraction.lean")
            lean.__dict__["GITHUB"] = github.Github(auth=github.Auth.Token(token))


@contextlib.contextmanager
def _without_token() -> Iterator[str | None]:
    token = os.environ.get(TOKEN)
    # Empty and not absent: LeanDojo reads .env files while it is imported, and they only fill in what is absent.
    os.environ[TOKEN] = ""
    try:
        yield token
    finally:
        if token is None:
            del os.environ[TOKEN]
        else:
            os.environ[TOKEN] = token
