"""Resolving names to objects, those of other distributions included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import UserError
from rlpost.plugins.registry import BUILTIN, names, resolve
from rlpost.scoring.score import Scorer


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in BUILTIN.items() for name in table])
def test_every_builtin_name_is_there(kind: str, name: str) -> None:
    found = resolve(kind, name)
    data = {"templates": (str, tuple), "template_needs": dict}
    assert isinstance(found, data[kind]) if kind in data else callable(found)
    assert name in names(kind)


def test_a_module_and_a_file_of_ones_own(tmp_path: Path) -> None:
    assert resolve("rewards", "math:sqrt")(4) == 2.0
    file = tmp_path / "mine.py"
    file.write_text("def brevity(completions):\n    return [-len(c) for c in completions]\n")
    assert resolve("rewards", f"{file}:brevity")(["abc"]) == [-3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outcom", "reward 'outcom' is not known; did you mean outcome?"),
        ("zzzz", "reward 'zzzz' is not known; known: outcome, overlong, ranking, subgoals, trl, turns, unlikeliness"),
        ("no_such_module_:f", "cannot import no_such_module_"),
        ("./no_such_file.py:f", "no file no_such_file.py"),
        ("math:sqr", "math has no 'sqr'; did you mean sqrt"),
        (":f", "':f'"),
        (".relative:f", "'.relative:f'"),
    ],
)
def test_a_name_nobody_knows_is_the_users_mistake(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("rewards", name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


THIRD_PARTY = """
from rlpost.types import Verdict

def brevity(completions):
    return [-float(len(text)) for text in completions]

class Parity:
    fingerprint = "third_party_parity/1"
    class Nested:
        pass
    def verify_batch(self, items):
        return [Verdict("accepted", 1.0, "even") for item in items]
    def close(self):
        pass
"""


def distribution(folder: Path, name: str, rewards: str, verifiers: str = "") -> None:
    """The files that `pip install` of a wheel writes: a module and its dist-info."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rlpost.rewards]\n{rewards}\n[rlpost.verifiers]\n{verifiers}\n")
    (folder / f"{name}.py").write_text(THIRD_PARTY)


@pytest.fixture
def site_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def test_another_distribution_declares_a_reward_and_a_verifier(site_folder: Path) -> None:
    name = "rlpost_test_third_party"
    distribution(site_folder, name, f"tp.brevity = {name}:brevity\ntp.gone = {name}:gone", f"tp.parity = {name}:Parity")
    assert "tp.brevity" in names("rewards")
    assert "tp.parity" in names("verifiers")
    assert resolve("rewards", "tp.brevity")(["abc"]) == [-3.0]
    assert resolve("verifiers", f"{name}:Parity.Nested").__name__ == "Nested"
    scorer = Scorer(ScoringSection(verifier="tp.parity", rewards=(RewardSpec(name="tp.brevity"),)))
    assert scorer.preflight([], conformance=True) == "third_party_parity/1"
    with pytest.raises(UserError, match=r"reward 'tp\.brevty' is not known; did you mean tp\.brevity"):
        resolve("rewards", "tp.brevty")
    with pytest.raises(UserError, match=rf"reward 'tp\.gone': {name} has no 'gone'"):
        resolve("rewards", "tp.gone")


def test_a_name_that_two_distributions_declare_is_not_guessed(site_folder: Path) -> None:
    for name in ("rlpost_test_one", "rlpost_test_two"):
        distribution(site_folder, name, f"tp.both = {name}:brevity")
    with pytest.raises(
        UserError, match=r"declared by several packages \(rlpost_test_one:brevity, rlpost_test_two:brev"
    ):
        resolve("rewards", "tp.both")
