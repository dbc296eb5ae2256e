"""Plug-ins sent as source text: they load where the files do not exist. Not covered here: real actors (tests/ray)."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from rlpost.config.schema import RewardSpec, RunConfig, ScoringSection
from rlpost.errors import UserError
from rlpost.plugins import usercode
from rlpost.plugins.ship import Shipped, named, ship

WORKER = """
import inspect, pickle, sys, traceback
from rlpost.scoring.score import Scorer
from rlpost.trajectory import Group, one_turn
from rlpost.types import Prompt
section, shipped = pickle.load(open(sys.argv[1], "rb"))
scorer = Scorer(section, shipped)
prompt = Prompt("p", text="2+2", columns={"answer": "4"})
text = one_turn((1,), (1, 2), "ab")
print(scorer.preflight([prompt], conformance=True))
[group] = scorer.score([Group(prompt, (text,))])
print([span.value for span in group.rewards[0]])
for _, stage in scorer.stages:
    if hasattr(stage, "function"):
        print(inspect.getsource(stage.function).splitlines()[0])
        print(pickle.loads(pickle.dumps(stage.function)) is stage.function)
"""


def in_another_place(section: ScoringSection, shipped: Shipped, folder: Path) -> str:
    """The output of a worker that starts in an empty folder and has only what was sent."""
    folder.mkdir()
    (folder / "sent").write_bytes(pickle.dumps((section, shipped)))
    roots = [str(Path(__file__).parents[3] / part) for part in (".", "rewards", "verifiers")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {roots}\n{WORKER}", str(folder / "sent")],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is the working directory."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def gone(folder: Path) -> None:
    for file in sorted(folder.rglob("*"), reverse=True):
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()


def test_a_file_and_the_module_it_imports_run_where_neither_exists(elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "shipped_reward.py").write_text(
        "def length(completions):\n    import shipped_words\n    return [shipped_words.count(c) for c in completions]\n"
    )
    (elsewhere / "mine" / "shipped_words.py").write_text("def count(text):\n    return len(text) / 2\n")
    section = ScoringSection(verifier=None, rewards=(RewardSpec(name="mine/shipped_reward.py:length", weight=3.0),))
    shipped = ship(RunConfig(scoring=section))
    assert {unit.name for unit in shipped.modules} == {"rlpost_user_shipped_reward", "shipped_words"}
    gone(elsewhere)
    said = in_another_place(section, shipped, tmp_path / "worker").splitlines()
    assert said[0].startswith("no verifier; tried reward 'mine/shipped_reward.py:length' in ")
    assert said[1:] == ["[3.0]", "def length(completions):", "True"]


def test_a_package_of_the_working_directory_runs_elsewhere(elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "shipped_package" / "inner").mkdir(parents=True)
    (elsewhere / "shipped_package" / "__init__.py").write_text("")
    # no __init__.py in `inner`
    (elsewhere / "shipped_package" / "inner" / "judge.py").write_text(
        "from ..values import ONE\n\n\ndef judge(text, columns):\n    return ONE if len(text) == 2 else 0\n"
    )
    (elsewhere / "shipped_package" / "values.py").write_text("ONE = 1\n")
    arguments = {"function": "shipped_package.inner.judge:judge"}
    section = ScoringSection(verifier="function", verifier_args=arguments)
    shipped = ship(RunConfig(scoring=section))
    gone(elsewhere)
    said = in_another_place(section, shipped, tmp_path / "worker").splitlines()
    assert said[0].startswith("function/shipped_package.inner.judge:judge/")
    assert said[1] == "[1.0]"


def test_only_what_is_not_built_in_is_sent() -> None:
    section = ScoringSection(verifier="lean.embedded", verifier_args={"cache_dir": "a:b", "x": ["no/such.py:f"]})
    assert list(named(RunConfig(scoring=section))) == []
    assert ship(RunConfig(scoring=section)) == Shipped()


def test_installed_modules_are_named_and_not_sent() -> None:
    shipped = ship(RunConfig(scoring=ScoringSection(verifier=None, rewards=(RewardSpec(name="statistics:mean"),))))
    assert shipped == Shipped((), {("rewards", "statistics:mean"): "statistics:mean"})


def test_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    from rlpost.plugins import registry

    found = []
    for value in (1, 2):
        (tmp_path / str(value)).mkdir()
        (tmp_path / str(value) / "same_name.py").write_text(f"VALUE = {value}\n")
        found.append(registry.resolve("rewards", f"{tmp_path}/{value}/same_name.py:VALUE"))
    assert found == [1, 2]
    (tmp_path / "1" / "same_name.py").write_text("VALUE = 3\n")
    assert registry.resolve("rewards", f"{tmp_path}/1/same_name.py:VALUE") == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "broken_plugin.py:1 (SyntaxError: invalid syntax"),
        ("\nx = missing\n", "broken_plugin.py:2 (NameError: name 'missing' is not defined); mend it there"),
        ("import json\nx = 1\ny = json.loads('{')\n", "broken_plugin.py:3 (JSONDecodeError: "),
        ("import sys\nsys.exit('no')\n", "broken_plugin.py:2 (SystemExit: no)"),
        ("import no_such_module_\n", "(No module named 'no_such_module_'); install or correct it"),
        ("def fo(): ...\n", "has no 'f'; did you mean fo?"),
    ],
)
def test_a_file_that_does_not_load_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "broken_plugin.py").write_text(text)
    name = f"{tmp_path}/broken_plugin.py:f"
    with pytest.raises(UserError) as caught:
        ship(RunConfig(scoring=ScoringSection(verifier=None, rewards=(RewardSpec(name=name),))))
    assert str(caught.value).startswith(f"reward {name!r}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "at_home.py").write_text("def f(completions):\n    return [0.0] * len(completions)\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    [unit] = ship(
        RunConfig(scoring=ScoringSection(verifier=None, rewards=(RewardSpec(name="~/at_home.py:f"),)))
    ).modules
    assert unit.path == str(tmp_path / "at_home.py")


def test_a_line_of_the_users_code_is_found_below_a_library(tmp_path: Path) -> None:
    (tmp_path / "calls_json.py").write_text("import json\n\n\ndef f():\n    return json.loads('{')\n")
    module = usercode.load_file(f"{tmp_path}/calls_json.py")
    with pytest.raises(ValueError, match="Expecting") as caught:
        module.f()
    assert usercode.place_of(caught.value) == f"{tmp_path}/calls_json.py:5"
