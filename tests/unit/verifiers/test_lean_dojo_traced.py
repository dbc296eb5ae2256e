"""A traced repository on disk, made by LeanDojo's own classes from syntax trees in the format of its extractor.

Not covered: a trace made by Lean itself, which takes a toolchain; `lean_dojo.trace` writes the same files.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlpost.data.prompts import to_prompts
from rlpost.errors import DataError
from rlpost_verifiers.lean.dojo import sources
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
from rlpost_verifiers.lean.dojo.traced import read_premises, read_theorems

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lean_dojo") is None, reason="pip install 'rlpost[dojo]'")

SOURCE = """namespace Logic

theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p := by
  apply And.intro
  exact h.2 -- the right part
  exact h.1

theorem triv : True := trivial

end Logic
"""
HYPOTHESES = "p q : Prop\nh : p ∧ q\n"
STATES = [
    f"{HYPOTHESES}⊢ q ∧ p",
    f"case left\n{HYPOTHESES}⊢ q\n\ncase right\n{HYPOTHESES}⊢ p",
    f"case right\n{HYPOTHESES}⊢ p",
    "no goals",
]
TACTICS = ["apply And.intro", "exact h.2", "exact h.1"]


class Writer:
    """Syntax trees over a source text, as LeanDojo's ExtractData.lean prints them; positions are UTF-8 bytes."""

    def __init__(self, source: str) -> None:
        self._source, self._at = source, 0

    def leaf(self, text: str, kind: str = "atom") -> dict[str, Any]:
        start = self._source.index(text, self._at)
        self._at = start + len(text)
        rest = self._source[self._at :]
        trailing = rest.split("\n")[0] if rest.lstrip(" ").startswith("--") else rest[: len(rest) - len(rest.lstrip())]
        place = {"leading": "", "pos": self._bytes(start), "trailing": trailing, "endPos": self._bytes(self._at)}
        content: dict[str, Any] = {"info": {"original": place}, "val": text}
        if kind == "ident":
            content |= {"rawVal": text, "preresolved": []}
        return {kind: content}

    def theorem(self, name: str, signature: str, proof: list[str] | str) -> dict[str, Any]:
        keyword, identifier = self.leaf("theorem"), self.leaf(name, "ident")
        typed, assign = self.leaf(signature), self.leaf(":=")
        body = self.leaf(proof, "ident") if isinstance(proof, str) else self._by(proof)
        declaration = node(
            "Command.theorem",
            keyword,
            node("Command.declId", identifier, node("null")),
            node("Command.declSig", typed),
            node("Command.declValSimple", assign, body),
        )
        return node("Command.declaration", node("Command.declModifiers", node("null")), declaration)

    def _by(self, tactics: list[str]) -> dict[str, Any]:
        by = self.leaf("by")
        steps: list[dict[str, Any]] = []
        for tactic in tactics:
            word, argument = tactic.split(" ")
            steps += [node(f"Tactic.{word}", self.leaf(word), self.leaf(argument, "ident")), node("null")]
        block = node("Tactic.tacticSeq", node("Tactic.tacticSeq1Indented", node("null", *steps[:-1])))
        return node("Term.byTactic", by, block)

    def span(self, text: str) -> dict[str, int]:
        start = self._source.index(text)
        return {"pos": self._bytes(start), "endPos": self._bytes(start + len(text))}

    def _bytes(self, index: int) -> int:
        return len(self._source[:index].encode())


def node(kind: str, *children: dict[str, Any]) -> dict[str, Any]:
    name = kind if kind == "null" else f"Lean.Parser.{kind}"
    return {"node": {"info": "none", "kind": name, "args": list(children)}}


def extraction() -> dict[str, Any]:
    writer = Writer(SOURCE)
    commands = [
        node("Module.header", node("null"), node("null")),
        node("Command.namespace", writer.leaf("namespace"), writer.leaf("Logic", "ident")),
        writer.theorem("swap", "(p q : Prop) (h : p ∧ q) : q ∧ p", TACTICS),
        writer.theorem("triv", ": True", "trivial"),
        node("Command.end", writer.leaf("end"), node("null", writer.leaf("Logic", "ident"))),
    ]
    tactics = [
        {"stateBefore": before, "stateAfter": after, **writer.span(tactic)}
        for tactic, before, after in zip(TACTICS, STATES, STATES[1:], strict=False)
    ]
    premise = {
        "fullName": "And.intro",
        "modName": "Init.Prelude",
        "defPath": "src/lean/Init/Prelude.lean",
        "defPos": {"line": 525, "column": 2},
        "defEndPos": {"line": 525, "column": 7},
        "pos": {"line": 4, "column": 8},
        "endPos": {"line": 4, "column": 17},
    }
    return {"commandASTs": commands, "tactics": tactics, "premises": [premise]}


def write_traced(root: Path, name: str) -> Path:
    lean_dojo: Any = import_lean_dojo()
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(SOURCE, encoding="utf-8")
    package = root / ".lake/packages/dep"
    base = package if (root / name).is_relative_to(package) else root
    trace = base / ".lake/build/ir" / (root / name).relative_to(base).with_suffix(".trace.xml")
    trace.parent.mkdir(parents=True)
    json_path = trace.with_name(f"{Path(name).stem}.ast.json")
    json_path.write_text(json.dumps(extraction()), encoding="utf-8")
    trace.with_name(f"{Path(name).stem}.dep_paths").write_text("")
    trace.write_text(lean_dojo.TracedFile.from_traced_file(root, json_path, None).to_xml(), encoding="utf-8")
    return trace


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = (tmp_path / "logic").resolve()
    root.mkdir()
    write_traced(root, "Logic/Basic.lean")
    write_traced(root, ".lake/packages/dep/Dep.lean")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "Logic"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    return root


def test_theorems_of_the_repository_and_not_of_its_packages(repository: Path) -> None:
    swap, triv = read_theorems(str(repository))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    assert (swap.full_name, swap.file_path) == ("Logic.swap", "Logic/Basic.lean")
    assert (swap.url, swap.commit) == (str(repository), commit.stdout.strip())
    assert (swap.start, swap.end) == ((3, 1), (6, 12))
    assert swap.statement == "theorem swap (p q : Prop) (h : p ∧ q) : q ∧ p :="
    assert [step.tactic for step in swap.steps] == TACTICS
    assert [step.state_before for step in swap.steps] == STATES[:-1]
    assert [step.state_after for step in swap.steps] == STATES[1:]
    assert (swap.steps[0].annotated, swap.steps[0].premises) == ("apply <a>And.intro</a>", ("And.intro",))
    assert (swap.steps[1].annotated, swap.steps[1].premises) == ("exact h.2", ())
    assert (triv.full_name, triv.steps) == ("Logic.triv", ())


def test_the_remote_names_the_repository(repository: Path) -> None:
    url = "https://example.org/logic.git"
    subprocess.run(["git", "remote", "add", "origin", url], cwd=repository, check=True)
    assert {theorem.url for theorem in read_theorems(str(repository))} == {url}


def test_premises_of_the_repository_and_its_packages(repository: Path) -> None:
    premises = read_premises(str(repository))
    assert [(premise.full_name, premise.path) for premise in premises] == [
        ("Logic.swap", "Logic/Basic.lean"),
        ("Logic.triv", "Logic/Basic.lean"),
        ("Logic.swap", ".lake/packages/dep/Dep.lean"),
        ("Logic.triv", ".lake/packages/dep/Dep.lean"),
    ]
    assert {premise.code for premise in premises if premise.full_name == "Logic.triv"} == {"theorem triv : True"}


def test_the_same_rows_as_from_a_benchmark(repository: Path) -> None:
    assert [row["id"] for row in sources.theorems(str(repository))] == ["Logic.swap@Logic/Basic.lean:3"]
    prompts = to_prompts(sources.tactics(str(repository)))
    assert [prompt.text for prompt in prompts] == STATES[:-1]
    assert [prompt.columns["tactic"] for prompt in prompts] == TACTICS
    assert len(to_prompts(sources.premises(str(repository)))) == 4


def test_a_source_changed_since_the_trace_is_refused(repository: Path) -> None:
    (repository / "Logic/Basic.lean").write_text(SOURCE + "\n")
    with pytest.raises(DataError, match=r"Basic\.trace\.xml: LeanDojo cannot read it .*trace it again"):
        read_theorems(str(repository))


def test_a_damaged_trace_is_refused(repository: Path) -> None:
    [trace] = (repository / ".lake/build").glob("**/*.trace.xml")
    trace.write_text("<TracedFile")
    for read in (read_theorems, read_premises):
        with pytest.raises(DataError, match=r"Basic\.trace\.xml: LeanDojo cannot read it"):
            read(str(repository))


def test_folders_that_were_never_traced(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(DataError, match="not a git repository with a commit"):
        read_theorems(str(tmp_path))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(DataError, match="not a git repository with a commit"):
        sources.theorems(str(tmp_path))
    [trace] = (repository / ".lake/build").glob("**/*.trace.xml")
    trace.unlink()
    with pytest.raises(DataError, match=r"holds no \*\.trace\.xml; trace the repository first"):
        read_theorems(str(repository))
