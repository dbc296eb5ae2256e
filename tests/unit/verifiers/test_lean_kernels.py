"""Lean versions with faulty kernels: told once, and not trusted with whole files. Not covered: the faults themselves."""

from __future__ import annotations

import logging
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from rlpost_verifiers.lean import command as lean_command
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.cli import LeanCli
from rlpost_verifiers.lean.toolchain.kernels import SAFE, kernel_faults, kernel_warning

FILE = ProofTask("True", "theorem X : True := trivial", mode="file")
PROOF = ProofTask("True", "trivial")


@pytest.mark.parametrize(
    ("version", "mended", "open_"),
    [
        ("4.9.0", "", "14484 14576 14613 14806 14838"),
        ("4.32.0", "", "14484 14576 14613 14806"),
        ("4.32.1", "14484", "14576 14613 14806"),
        ("4.32.2", "14484 14576", "14613 14806"),
        ("4.33.0-rc2", "14484 14576", "14613 14806"),
        ("v4.33.0", "14484 14576 14613", "14806 14807 14838"),
        ("4.33.1", "14806", ""),
        (SAFE, "14806", ""),
        ("4.34.0-rc1", "14806", ""),
        ("4.35.0", "14806", ""),
    ],
)
def test_a_version_has_the_faults_that_later_ones_mend(version: str, mended: str, open_: str) -> None:
    faults = kernel_faults(version)
    assert [number for number in open_.split() if f"#{number}" not in faults] == []
    assert [number for number in mended.split() if f"#{number}" in faults] == []
    assert bool(faults) == bool(open_) == bool(kernel_warning(version))


@pytest.mark.parametrize("text", ["", "unknown", "4", "4.34", "lean4:v4.34.0", "4.34.0.1"])
def test_what_is_no_version_is_not_trusted(text: str) -> None:
    with pytest.raises(ValueError, match="is no version of Lean"):
        kernel_faults(text)
    assert f"the version of this Lean is {text!r}" in kernel_warning(text)
    assert "\n" not in kernel_warning(text)


def old_lean(tmp_path: Path, version: str, **settings: Any) -> LeanCli:
    """A command that tells a version and checks nothing."""
    path = tmp_path / "lean"
    path.write_text(f"#!{sys.executable}\nprint('Lean (version {version}, x86_64, commit 0, Release)')\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return LeanCli(str(path), imports="", leanchecker="off", **settings)


def test_an_old_kernel_is_told_once_and_judges_no_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), old_lean(tmp_path, "4.9.0") as lean:
        refused, tried = lean.check([FILE, PROOF])
        lean.check([FILE])
        assert lean.modes == {"proof", "declarations"}
        assert lean.read_statements([FILE])[0] == refused.evidence["messages"][0]
    assert (refused.outcome, refused.reason, refused.score) == ("undecided", "unavailable", None)
    assert tried.reason != "unavailable"
    [message] = caplog.messages
    assert "Lean 4.9.0 has known faults" in message
    assert "mode 'file' is refused (allow_old_kernel: true permits it)" in message


@pytest.mark.parametrize("version", ["4.9.0", SAFE])
def test_files_are_judged_by_new_kernels_and_where_it_is_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    with caplog.at_level(logging.WARNING), old_lean(tmp_path, version, allow_old_kernel=version != SAFE) as lean:
        [verdict] = lean.check([FILE])
        assert "file" in lean.modes
    assert verdict.reason != "unavailable"
    assert [text for text in caplog.messages if "is refused" in text] == []
    assert len(caplog.messages) == (version != SAFE)


@pytest.mark.parametrize(("version", "state"), [("4.31.0", "note"), ("4.35.1", "ok")])
def test_the_doctor_tells_of_the_lean_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    old_lean(tmp_path, version).close()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    topic, found, text, remedy = lean_command._kernel()
    assert (topic, found) == ("lean.kernel", state)
    assert version in text
    assert ("allow_old_kernel" in remedy) == (state == "note")
