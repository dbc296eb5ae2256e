"""LeanDojo benchmark files as records and as rows. Not covered: the published benchmark, which is too large to ship."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rlpost.data.prompts import to_prompts
from rlpost.errors import DataError
from rlpost.plugins import registry
from rlpost_verifiers.lean.dojo.benchmark import Premise, TracedStep, read_premises, read_theorems

SWAP: dict[str, Any] = {
    "url": "https://example.org/logic",
    "commit": "a" * 40,
    "file_path": "Logic/Basic.lean",
    "full_name": "Logic.swap",
    "start": [3, 1],
    "end": [5, 30],
    "theorem_statement": "theorem swap (h : p ∧ q) : q ∧ p :=",
    "traced_tactics": [
        {
            "tactic": "apply And.intro",
            "annotated_tactic": [
                "apply <a>And.intro</a>",
                [{"full_name": "And.intro", "def_path": "Init/Prelude.lean", "def_pos": [9, 3], "def_end_pos": [9, 8]}],
            ],
            "state_before": "p q : Prop\nh : p ∧ q\n⊢ q ∧ p",
            "state_after": "case left\np q : Prop\nh : p ∧ q\n⊢ q\n\ncase right\np q : Prop\nh : p ∧ q\n⊢ p",
        },
        {"tactic": "simp_all", "state_before": "p q : Prop\n⊢ q", "state_after": "no goals"},
    ],
}
TERM: dict[str, Any] = {
    **{key: SWAP[key] for key in ("url", "commit", "file_path")},
    **{"full_name": "Logic.triv", "start": [7, 1], "end": [7, 30], "traced_tactics": []},
}
FILE: dict[str, Any] = {
    "path": "Logic/Basic.lean",
    "imports": ["Init/Prelude.lean"],
    "premises": [
        {
            "full_name": "Logic.two",
            "code": "def two := 2",
            "start": [1, 1],
            "end": [1, 13],
            "kind": "commanddeclaration",
        },
        {
            "full_name": None,
            "code": "instance : A := ⟨⟩",
            "start": [2, 1],
            "end": [2, 19],
            "kind": "commanddeclaration",
        },
    ],
}


def written(folder: Path, content: Any) -> str:
    path = folder / "train.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_reads_theorems_with_their_traces(tmp_path: Path) -> None:
    swap, term = read_theorems(written(tmp_path, [SWAP, TERM]))
    assert (swap.full_name, swap.start, swap.end, swap.statement) == (
        "Logic.swap",
        (3, 1),
        (5, 30),
        "theorem swap (h : p ∧ q) : q ∧ p :=",
    )
    assert swap.steps[0].annotated == "apply <a>And.intro</a>"
    assert swap.steps[0].premises == ("And.intro",)
    assert swap.steps[1] == TracedStep("simp_all", "simp_all", (), "p q : Prop\n⊢ q", "no goals")
    assert (term.steps, term.statement) == ((), None)
    assert pickle.loads(pickle.dumps(swap)) == swap


def test_a_row_for_each_theorem_with_a_tactic_proof(tmp_path: Path) -> None:
    rows = registry.resolve("sources", "lean_dojo_theorems")(written(tmp_path, [SWAP, TERM]))
    [prompt] = to_prompts(rows)
    assert prompt.id == "Logic.swap@Logic/Basic.lean:3"
    assert prompt.text == "p q : Prop\nh : p ∧ q\n⊢ q ∧ p"
    assert prompt.columns["theorem_statement"] == "theorem swap (h : p ∧ q) : q ∧ p :="
    assert prompt.columns["tactics"] == ["apply And.intro", "simp_all"]
    assert (prompt.columns["url"], prompt.columns["commit"]) == ("https://example.org/logic", "a" * 40)


def test_a_row_for_each_state_and_tactic(tmp_path: Path) -> None:
    rows = registry.resolve("sources", "lean_dojo_tactics")(written(tmp_path, [SWAP, TERM]))
    first, second = to_prompts(rows)
    assert (first.text, first.columns["tactic"]) == ("p q : Prop\nh : p ∧ q\n⊢ q ∧ p", "apply And.intro")
    assert (first.columns["annotated_tactic"], first.columns["premises"]) == ("apply <a>And.intro</a>", ["And.intro"])
    assert (second.id, second.columns["step"]) == ("Logic.swap@Logic/Basic.lean:3#1", 1)
    assert second.columns["state_after"] == "no goals"


def test_a_row_for_each_premise_with_a_name(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps(FILE) + "\n\n" + json.dumps({**FILE, "path": "B.lean", "premises": []}) + "\n")
    two = Premise("Logic.two", "def two := 2", "Logic/Basic.lean", (1, 1), (1, 13), "commanddeclaration")
    assert read_premises(str(path)) == [two]
    [prompt] = to_prompts(registry.resolve("sources", "lean_dojo_premises")(str(path)))
    assert (prompt.id, prompt.text, prompt.columns["path"]) == (
        "Logic.two@Logic/Basic.lean:1",
        "def two := 2",
        "Logic/Basic.lean",
    )


def broken(*path: str | int, value: Any) -> list[Any]:
    theorems = deepcopy([TERM, SWAP])
    place: Any = theorems
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return theorems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": []}, r"train\.json: holds \{'data': \[\]\}, not a list of theorems"),
        ([[]], r"train\.json, theorem 0: expected an object, got \[\]"),
        ([{"url": "u"}], r"theorem 0: no 'traced_tactics' \(there are url\)"),
        ([{}], r"theorem 0: no 'traced_tactics' \(there are no keys\)"),
        (broken(1, "full_name", value=7), r"theorem 1: 'full_name' is 7, expected text"),
        (broken(1, "start", value=[3]), r"theorem 1: 'start' is \[3\], expected line and column"),
        (broken(1, "end", value=[0, 1]), r"theorem 1: 'end' is \[0, 1\], expected line and column, counted from 1"),
        (broken(1, "theorem_statement", value=[]), r"theorem 1: 'theorem_statement' is \[\], expected text"),
        (broken(1, "traced_tactics", value="x"), r"theorem 1: 'traced_tactics' is 'x', expected a list"),
        (broken(1, "traced_tactics", 0, value=None), r"theorem 1, tactic 0: expected an object, got None"),
        (broken(1, "traced_tactics", 1, "tactic", value=None), r"theorem 1, tactic 1: 'tactic' is None, expected text"),
        (broken(1, "traced_tactics", 0, "annotated_tactic", value="a"), r"tactic 0: 'annotated_tactic' is 'a'"),
        (broken(1, "traced_tactics", 0, "annotated_tactic", 1, 0, value="a"), r"tactic 0: expected an object, got 'a'"),
    ],
)
def test_a_broken_benchmark_is_named_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_theorems(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: no such file"):
        read_theorems(str(tmp_path / "nowhere.json"))
    path = tmp_path / "torn.json"
    path.write_text('[{"url": ')
    with pytest.raises(DataError, match=r"torn\.json: not valid JSON .*line 1"):
        read_theorems(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"torn\.json: not UTF-8"):
        read_theorems(str(path))
    with pytest.raises(DataError, match=r"torn\.json: not UTF-8"):
        read_premises(str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"corpus\.jsonl:1: expected an object, got \[1\]"),
        ('{"path": "A.lean"}', r"corpus\.jsonl:1: no 'premises'"),
        ('{"path": "A.lean", "premises": [{"full_name": 3}]}', r":1, premise 0: 'full_name' is 3, expected text"),
        ('{"path": "A.lean", "premises": [{"full_name": "a"}]}', r":1, premise 0: no 'code'"),
        ("{", r"corpus\.jsonl:1: not valid JSON"),
    ],
)
def test_a_broken_corpus_is_named_in_one_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read_premises(str(path))


def test_long_values_are_shortened(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_theorems(written(tmp_path, [["x" * 500]]))
    assert len(str(caught.value)) < 300
