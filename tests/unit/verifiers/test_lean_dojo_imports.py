"""Importing LeanDojo where a plain import would fail. Not covered: LeanDojo's later requests, which need GitHub."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rlpost.errors import MissingPackageError
from rlpost_verifiers.lean.dojo import imports

ROOT = Path(__file__).parents[3]
HAS_DOJO = importlib.util.find_spec("lean_dojo") is not None
OURS = """
import os, sys
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
dojo = import_lean_dojo()
assert import_lean_dojo() is dojo
print(dojo.TacticState("⊢ True", 1).num_goals, os.environ.get("GITHUB_ACCESS_TOKEN"))
client = sys.modules["lean_dojo.data_extraction.lean"].GITHUB
print(getattr(client.requester.auth, "token", None))
"""


def run_python(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own without network: its only proxy is a port where nothing listens."""
    inherited = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and key != imports.TOKEN}
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "rewards", "verifiers"))
    dead = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=120, check=False,
        env={**inherited, **dead, "PYTHONPATH": paths, "CACHE_DIR": str(home), **environment},
    )  # fmt: skip


@pytest.mark.skipif(not HAS_DOJO, reason="pip install 'rlpost[dojo]'")
def test_a_token_does_not_break_the_import_offline(tmp_path: Path) -> None:
    plain = run_python("import lean_dojo", tmp_path, GITHUB_ACCESS_TOKEN="xyz")
    assert plain.returncode != 0, "LeanDojo no longer asks GitHub on import: the guard can go"
    assert "api.github.com" in plain.stderr
    ours = run_python(OURS, tmp_path, GITHUB_ACCESS_TOKEN="xyz")
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout.splitlines() == ["1 xyz", "xyz"]
    assert "xyz" not in ours.stderr


@pytest.mark.skipif(not HAS_DOJO, reason="pip install 'rlpost[dojo]'")
def test_without_a_token_none_is_left_behind(tmp_path: Path) -> None:
    ours = run_python(OURS, tmp_path)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout.splitlines() == ["1 None", "None"]


def test_the_readers_and_the_environment_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, rlpost_verifiers.lean.dojo.sources, rlpost_verifiers.lean.dojo.live\n"
        "print({'lean_dojo', 'ray', 'github', 'git'} & set(sys.modules))"
    )
    assert run_python(code, tmp_path).stdout == "set()\n"


def test_absent_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lean_dojo", raising=False)
    monkeypatch.setattr(imports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"^LeanDojo is not installed; run: pip install 'rlpost\[dojo\]'$"):
        imports.import_lean_dojo()


def test_git_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match=r"git was not found; LeanDojo needs git 2\.25 or newer on PATH"):
        imports.check_git()


@pytest.mark.parametrize(
    ("said", "accepted"),
    [
        ("git version 2.39.5", True),
        ("git version 2.25.0.windows.1", True),
        ("git version 3.0.1", True),
        ("git version 2.24.9", False),
        ("git version 1.99.0", False),
        ("nothing of the sort", False),
    ],
)
def test_git_must_be_new_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, accepted: bool) -> None:
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\necho '{said}'\n")
    git.chmod(git.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if accepted:
        imports.check_git()
        return
    with pytest.raises(MissingPackageError, match=f"reports '{said}'; LeanDojo needs git 2.25"):
        imports.check_git()


def test_a_broken_package_is_no_missing_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is put back when the import fails, and the error says which package to repair."""

    def fail(name: str) -> None:
        assert os.environ[imports.TOKEN] == ""
        raise ImportError("libxml2.so.2: no such file")

    monkeypatch.delitem(sys.modules, "lean_dojo", raising=False)
    monkeypatch.setattr(imports.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(imports.importlib, "import_module", fail)
    monkeypatch.setenv(imports.TOKEN, "xyz")
    with pytest.raises(MissingPackageError, match=r"libxml2.so.2.*pip install --force-reinstall lean-dojo"):
        imports.import_lean_dojo()
    assert os.environ[imports.TOKEN] == "xyz"
