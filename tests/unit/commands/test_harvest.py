"""Rows of accepted answers, from transcripts as runs write them to prompts and targets as a warm start reads them.

Not covered: training on them (tests/ray).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlpost
from rlpost.cli import main
from rlpost.commands.sft import read_pairs
from rlpost.config.load import from_dict
from rlpost.data import load
from rlpost.errors import DataError, UserError
from rlpost.observability.runfolder import RunFolder
from rlpost.observability.transcripts import lines, write
from rlpost.trajectory import Group, Segment, Ticket, Trajectory, one_turn
from rlpost.types import Message, Prompt, SpanReward, Verdict


def accepted(assurance: str = "kernel_replayed") -> Verdict:
    return Verdict("accepted", 1.0, "proved", assurance=assurance, backend="lean/4.34")


REJECTED = Verdict("rejected", 0.0, "failed", assurance="elaborated")
UNDECIDED = Verdict("undecided", None, "crashed")


def turns(*said: str, tokens: int = 2, **changed: Any) -> Trajectory:
    """A dialogue: the policy's texts at even places, the environment's between them."""
    segments = [Segment("prompt", 0, 2, -1)]
    for place, text in enumerate(said):
        start = segments[-1].stop
        origin = "environment" if place % 2 else "policy"
        extra = {"finish": None if place % 2 else "stop"} | (changed if place == 1 else {})
        segments.append(Segment(origin, start, start + tokens, place // 2, text, **extra))
    ids = np.arange(segments[-1].stop, dtype=np.int32)
    return Trajectory(None, 0, ids, None, (), tuple(segments), "done")


def answer(text: str, tokens: int = 3, finish: Any = "stop") -> Trajectory:
    return one_turn((1, 2), range(tokens), text, version=5, finish=finish)


class Folder:
    """A data set and runs on it, written with the code that writes them in training."""

    def __init__(self, path: Path, rows: Sequence[Mapping[str, Any]], **sections: Any) -> None:
        self.path, self.sections = path, sections
        self.data = path / "train.jsonl"
        self.data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    def config(self, name: str = "r", **further: Any) -> Any:
        data = {"train": str(self.data), **self.sections.get("data", {}), **further.pop("data", {})}
        rest = {key: value for key, value in self.sections.items() if key != "data"}
        return from_dict(
            {"run": {"name": name, "output_dir": str(self.path / "runs")}, "model": {"path": "m"}, "data": data}
            | {"scoring": {"verifier": "lean.cli"}}
            | rest
            | further
        )

    def run(
        self,
        answers: Sequence[tuple[Prompt, Trajectory, Verdict | None]],
        name: str = "r",
        step: int = 0,
        reward: float | None = 1.0,
        **further: Any,
    ) -> Path:
        folder = RunFolder(self.config(name, **further), resume=False)
        folder.create()
        rows: list[dict[str, Any]] = []
        for number, (prompt, one, verdict) in enumerate(answers):
            paid = None if reward is None or verdict == UNDECIDED else (SpanReward(0, one.length, reward),)
            group = Group(prompt, (one,), (verdict,), (paid,))
            rows += lines(group, Ticket(number, prompt.id, (40 + number,), 5), (0.5,))
        write(folder.transcript(step), iter(rows))
        return folder.path

    def harvest(self, runs: Any, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
        target = self.path / "out.jsonl"
        found = rlpost.harvest(runs, target, force=True, **options)
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n") if line]
        assert found.read == found.rows + sum(found.left_out.values())
        assert found.rows == len(rows)
        return found, rows

    def targets(self, found: Any) -> list[tuple[Any, tuple[str, ...]]]:
        """Prompts and targets as a further run with the same settings reads them, without its prefix."""
        config = self.config(sft={**self.sections.get("sft", {}), **found.sft})
        return [(prompt.text or prompt.messages, target) for prompt, target in read_pairs(config, config.sft)]


Q1, Q2 = Prompt("a", text="p → p"), Prompt("b", text="q ∨ ¬q")
ROWS = [{"id": "a", "prompt": "p → p", "level": 3}, {"id": "b", "prompt": "q ∨ ¬q", "level": None}]


def test_only_what_is_accepted_is_written_with_columns_and_source(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run(
        [
            (Q1, answer("by simp"), accepted()),
            (Q1, answer("by exact id"), REJECTED),
            (Q2, answer("by tauto", finish="length"), accepted()),
            (Q2, answer("by tauto", finish="abort"), UNDECIDED),
            (Q2, answer("by decide"), UNDECIDED),
        ],
        step=7,
    )
    found, [row] = folder.harvest(run)
    assert found.left_out == {"undecided": 2, "truncated": 1, "rejected": 1}
    source = row.pop("harvest")
    assert row == {"id": "a", "prompt": "p → p", "level": 3, "proof": "by simp"}
    assert source.pop("rlpost")
    assert source == {
        "run": "r", "step": 7, "prompt_id": "a", "member": 0, "ticket": 0, "seed": 40, "policy_version": 5,
        "outcome": "accepted", "reason": "proved", "assurance": "kernel_replayed", "verifier": "lean/4.34",
        "reward": 1.0, "tokens": 3, "completion_prefix": "",
    }  # fmt: skip
    assert folder.targets(found) == [("p → p", ("by simp",))]


def test_an_assurance_can_be_demanded(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Q1, answer("by simp"), accepted()), (Q2, answer("by tauto"), accepted("elaborated"))])
    found, rows = folder.harvest(run, assurance="kernel_replayed")
    assert [row["id"] for row in rows] == ["a"]
    assert (found.left_out, found.assurances) == ({"assurance": 1}, {"kernel_replayed": 1})
    with pytest.raises(DataError, match="accepted answers rest on: kernel_replayed: 1, elaborated: 1"):
        folder.harvest(run, assurance=["believed"])


def test_rewards_without_verdicts_need_a_threshold(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Q1, answer("one"), None), (Q2, answer("two"), None)], reward=0.7, scoring={"rewards": ["trl"]})
    with pytest.raises(DataError, match="has a reward and no verdict, so nothing says what is accepted"):
        folder.harvest(run)
    assert folder.harvest(run, min_reward=0.7)[0].rows == 2
    with pytest.raises(DataError, match="below the demanded reward: 2"):
        folder.harvest(run, min_reward=0.8)


def test_answers_that_differ_in_what_lean_does_not_read_are_the_same(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    texts = ["by\n  simp -- a\n  rfl", "by simp\n  rfl", "by /- b -/ simp rfl", "by simp; rfl"]
    run = folder.run([(Q1, answer(text, 9 - i), accepted()) for i, text in enumerate(texts)])
    found, rows = folder.harvest(run, per_prompt=None)
    assert [row["proof"] for row in rows] == ["by simp; rfl", "by /- b -/ simp rfl"]
    assert found.left_out == {"duplicates": 2}
    assert [row["proof"] for row in folder.harvest(run, pick="first", per_prompt=1)[1]] == [texts[0]]


def test_the_same_proof_of_two_prompts_is_two_rows_and_of_two_runs_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    both = [(Q1, answer("by tauto"), accepted()), (Q2, answer("by tauto"), accepted())]
    found, rows = folder.harvest([folder.run(both, "one"), folder.run(both, "two", step=3)])
    assert [(row["id"], row["harvest"]["run"]) for row in rows] == [("a", "one"), ("b", "one")]
    assert sorted(own["written"] for own in found.runs.values()) == [0, 2]


@pytest.mark.parametrize(
    ("pick", "expected"),
    [
        ("first", ["by simp at h ⊢", "by simp at *"]),
        ("shortest", ["by rfl", "by simp at *"]),
        ("diverse", ["by rfl", "exact fun h => h.elim"]),
    ],
)
def test_answers_to_a_prompt_are_picked(tmp_path: Path, pick: Any, expected: list[str]) -> None:
    folder = Folder(tmp_path, ROWS)
    given = {"by simp at h ⊢": 5, "by simp at *": 4, "exact fun h => h.elim": 9, "by rfl": 2}
    run = folder.run([(Q1, answer(text, size), accepted()) for text, size in given.items()])
    found, rows = folder.harvest(run, pick=pick, per_prompt=2)
    assert [row["proof"] for row in rows] == expected
    assert found.left_out == {"surplus": 2}
    assert folder.harvest(run, pick=pick, per_prompt=2)[1] == rows


@pytest.mark.parametrize("spelled", ["p → p", "p  →\n p"])
def test_held_out_prompts_are_refused_or_left_out(tmp_path: Path, spelled: str) -> None:
    folder = Folder(tmp_path, ROWS)
    (tmp_path / "eval.jsonl").write_text(json.dumps({"id": "z", "prompt": spelled}))
    answers = [(Q1, answer("by simp"), accepted()), (Q2, answer("by tauto"), accepted())]
    own = folder.run(answers, "own", data={"eval": str(tmp_path / "eval.jsonl"), "contamination": "drop"})
    other = folder.run(answers, "other")
    (tmp_path / "conf.yaml").write_text(f"extends: {own}/config.yaml\n")
    given = [(own, []), (other, str(tmp_path / "eval.jsonl")), (other, [own]), (other, [tmp_path / "conf.yaml"])]
    for run, held_out in given:
        with pytest.raises(DataError, match="1 of 2 accepted answers are to prompts that are held out") as caught:
            folder.harvest(run, held_out=held_out)
        assert "'z'" in str(caught.value)
        found, rows = folder.harvest(run, held_out=held_out, contamination="drop")
        assert [row["id"] for row in rows] == ["b"]
        assert found.left_out == {"contaminated": 1}
    assert folder.harvest(own, contamination="allow")[0].rows == 2
    with pytest.raises(DataError, match=r"has no data\.eval"):
        folder.harvest(own, held_out=[other])


def test_a_statement_is_held_out_whatever_its_prompt_looks_like(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [{"id": "a", "statement": "p → p"}], data={"template": "{statement} :="})
    (tmp_path / "eval.jsonl").write_text(json.dumps({"statement": "p →  p"}))
    run = folder.run([(Prompt("a", text="p → p :="), answer("by simp"), accepted())])
    other = {"eval": str(tmp_path / "eval.jsonl"), "template": "theorem : {statement} := by"}
    held_out = folder.run([], "other", data=other)
    with pytest.raises(DataError, match="held out"):
        folder.harvest(run, held_out=held_out)


def test_a_prompt_that_the_data_no_longer_has_is_refused_with_both_texts(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Prompt("a", text="p → r"), answer("by simp"), accepted())])
    with pytest.raises(DataError, match=r"prompt 'a' was 'p → r', and data\.train has 'p → p'"):
        folder.harvest(run)
    gone = folder.run([(Prompt("c", text="r"), answer("by simp"), accepted())], "gone")
    with pytest.raises(DataError, match=r"prompt 'c' \('r'\) is not among the 2 of data\.train"):
        folder.harvest(gone)
    moved = tmp_path / "moved.jsonl"
    moved.write_text(json.dumps({"id": "a", "prompt": "p → r"}))
    assert folder.harvest(run, overrides=[f"data.train={moved}"])[1][0]["prompt"] == "p → r"


def test_runs_with_the_same_id_for_different_prompts_keep_both(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    one = folder.run([(Q1, answer("by simp"), accepted())], "one")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": "a", "prompt": "r → r"}))
    two = folder.run([(Prompt("a", text="r → r"), answer("by simp"), accepted())], "two", data={"train": str(other)})
    found, rows = folder.harvest([one, two])
    assert [(row["id"], row["prompt"]) for row in rows] == [("a", "p → p"), ("a", "r → r")]
    assert folder.targets(found) == [("p → p", ("by simp",)), ("r → r", ("by simp",))]


CHAT = [{"role": "system", "content": "Prove."}, {"role": "user", "content": "p → p"}]
PREFILLED = [*CHAT, {"role": "assistant", "content": "by "}]
CALLED = [
    {"role": "user", "content": "Look it up."},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
    {"role": "tool", "content": "4", "name": "f"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ({"prompt": CHAT}, {}),
        ({"prompt": json.dumps(CHAT)}, {}),
        ({"prompt": [{"from": "human", "value": "p → p"}]}, {}),
        ({"prompt": PREFILLED}, {"last_assistant": "continue"}),
        ({"prompt": [*CHAT, {"role": "assistant", "content": "by simp"}]}, {"last_assistant": "cut"}),
        ({"prompt": CALLED, "tools": TOOLS}, {}),
        ({"prompt": CALLED, "tools": json.dumps(TOOLS)}, {}),
        ({"q": "Zeile eins\u2028zwei 🦆 e\u0301 \u0000 ‮"}, {"prompt_key": "q"}),
        ({"q": "p → p", "n": 3}, {"template": "{n}. {q} {{x}} :="}),
        ({"q": "p → p"}, {"chat_template": [["system", "Prove."], ["user", "{q}"]]}),
        ({"prompt": "no id", "id": None}, {}),
        ({"prompt": "number", "id": 12}, {}),
        ({"key": "x", "prompt": "other id"}, {"id_key": "key"}),
    ],
)
def test_prompts_of_every_kind_are_read_back_as_they_were_asked(
    tmp_path: Path, row: dict[str, Any], data: dict[str, Any]
) -> None:
    folder = Folder(tmp_path, [row], data=data)
    config = folder.config()
    [prompt] = load.prompts(config.data, "train")
    said = "by\n  exact ⟨𝔸, \u2028 🦆\r\n\ttab⟩\\n \"'{x}"
    found, [written] = folder.harvest(folder.run([(prompt, answer(said), accepted())]))
    assert folder.targets(found) == [(prompt.text or prompt.messages, (said,))]
    assert {name: written[name] for name in row if row[name] is not None} == {
        name: value for name, value in row.items() if value is not None
    }
    assert written["harvest"]["prompt_id"] == prompt.id


def test_a_dialogue_is_a_target_of_several_turns(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    said = ("by simp", "unsolved goals\n⊢ p", "by tauto")
    run = folder.run([(Q1, turns(*said), accepted()), (Q2, turns(*said, "a last word"), accepted())])
    found, rows = folder.harvest(run)
    assert [row["proof"] for row in rows] == [list(said), list(said)]
    assert [target for _, target in folder.targets(found)] == [said, said]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (turns("a", "b", "c", finish="length"), "no_target"),
        (turns("a", "b", "c", roles=("tool",)), "no_target"),
        (turns("a", "b", "c", roles=("user", "user")), "no_target"),
        (turns("a", "b", "c\ufffd"), "no_target"),
        (turns("a", "b", " "), "empty"),
        (answer(""), "empty"),
        (answer("\n \t"), "empty"),
    ],
)
def test_what_would_be_trained_on_otherwise_than_it_was_is_counted(
    tmp_path: Path, one: Trajectory, reason: str
) -> None:
    folder = Folder(tmp_path, ROWS)
    found, _ = folder.harvest(folder.run([(Q1, one, accepted()), (Q2, answer("by simp"), accepted())]))
    assert found.left_out == {reason: 1}


def test_history_that_a_template_rewrote_is_no_target(tmp_path: Path) -> None:
    segments = (
        Segment("prompt", 0, 2, -1), Segment("policy", 2, 4, 0, "a", finish="stop"),
        Segment("prompt", 4, 9, 0), Segment("policy", 9, 11, 1, "b", finish="stop"),
    )  # fmt: skip
    rewritten = Trajectory(None, 0, np.arange(11, dtype=np.int32), None, (), segments, "done")
    folder = Folder(tmp_path, ROWS)
    found, _ = folder.harvest(folder.run([(Q1, rewritten, accepted()), (Q2, answer("by simp"), accepted())]))
    assert found.left_out == {"no_target": 1}


def test_an_opening_that_the_prompt_does_not_hold_makes_no_target(tmp_path: Path) -> None:
    read = (
        Segment("prompt", 0, 2, -1), Segment("environment", 2, 4, 0, "hello", roles=("user",)),
        Segment("policy", 4, 6, 0, "a", finish="stop"),
    )  # fmt: skip
    within = (Segment("prompt", 0, 4, -1, roles=("user",)), Segment("policy", 4, 6, 0, "a", finish="stop"))
    folder = Folder(tmp_path, ROWS)
    ones = [Trajectory(None, 0, np.arange(6, dtype=np.int32), None, (), given, "done") for given in (read, within)]
    answers = [(Q1, one, accepted()) for one in ones]
    found, _ = folder.harvest(folder.run([*answers, (Q2, answer("by simp"), accepted())]))
    assert found.left_out == {"no_target": 2}


def test_the_prefix_of_the_warm_start_is_not_written_twice(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS, sft={"completion_key": "gold", "completion_prefix": " "})
    run = folder.run([(Q1, answer(" by simp"), accepted()), (Q2, answer("by tauto"), accepted())])
    found, [row] = folder.harvest(run)
    assert row["gold"] == "by simp"
    assert found.left_out == {"prefix": 1}
    assert folder.targets(found) == [("p → p", (" by simp",))]


def test_a_run_without_a_warm_start_takes_the_prefix_of_those_with_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    one = folder.run([(Q1, answer(" by simp"), accepted())], "one", sft={"completion_prefix": " "})
    other = folder.run([(Q2, answer(" by tauto"), accepted()), (Q2, answer("by omega"), accepted())], "two")
    found, rows = folder.harvest([other, one])
    assert sorted(row["proof"] for row in rows) == ["by simp", "by tauto"]
    assert {row["harvest"]["completion_prefix"] for row in rows} == {" "}
    assert found.left_out == {"prefix": 1}
    assert found.sft["completion_prefix"] == " "


def test_a_column_that_the_answer_displaces_is_kept_and_never_one_that_the_prompt_reads(tmp_path: Path) -> None:
    folder = Folder(tmp_path, [{"id": "a", "prompt": "p → p", "proof": "by trivial"}])
    run = folder.run([(Q1, answer("by simp"), accepted())])
    assert folder.harvest(run)[1][0]["harvest"]["replaced"] == "by trivial"
    with pytest.raises(DataError, match=r"would be read as 'by simp'; give another --completion-key than 'prompt'"):
        folder.harvest(run, completion_key="prompt")


def test_columns_of_numpy_are_plain_and_those_that_json_has_no_form_for_are_said(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "import datetime, numpy as np\ndef rows(): return [{'id': 'a', 'prompt': 'p → p', 'xs': np.array([1, 2]), "
        "'n': np.float32(0.5), 'none': float('nan'), 'when': datetime.date(2026, 1, 1), 'raw': b'x'}]\n"
    )
    folder = Folder(tmp_path, ROWS, data={"source": f"{code}:rows", "train": {}})
    found, [row] = folder.harvest(folder.run([(Q1, answer("by simp"), accepted())]))
    assert {name: row.get(name) for name in ("xs", "n", "none", "when", "raw")} == {
        "xs": [1, 2], "n": 0.5, "none": None, "when": None, "raw": None,
    }  # fmt: skip
    assert [note.split(" is left out")[0] for note in found.notes] == ["column 'when'", "column 'raw'"]
    assert folder.targets(found) == [("p → p", ("by simp",))]


def test_damaged_and_unfinished_and_old_transcripts_are_said_and_counted(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Q1, answer("by simp"), accepted()), (Q2, answer("by tauto"), accepted())])
    home = run / "transcripts"
    whole = (home / "step_000000.jsonl").read_bytes()
    (home / "step_000001.jsonl").write_bytes(whole[:-40])
    (home / "step_000002.jsonl").write_text('{"prompt": "p → p", "completion": "by simp", "outcome": "accepted"}\n')
    (home / "step_000003.jsonl").write_bytes(b"\xff\xfe\n[1]\nnull\n\n" + b"[" * 100_000)
    (home / "step_000004.jsonl").write_bytes(whole.replace(b'"segments": [', b'"segments": ["x", '))
    (home / "step_000005.jsonl").write_bytes(b"")
    (home / "step_000006.jsonl.partial").write_bytes(whole)
    (home / "notes.txt").write_text("mine")
    found, rows = folder.harvest(run)
    assert len(rows) == 2
    assert found.left_out == {"damaged": 7, "old": 1, "duplicates": 1}
    assert [note.split("transcripts/")[1] for note in found.notes] == [
        "step_000006.jsonl.partial: unfinished (its step was interrupted); not read",
        "step_000001.jsonl: 1 lines are not whole rows (first: line 2); left out",
        "step_000002.jsonl: 1 lines are rows of an earlier version, without what is needed (first: line 1); left out",
        "step_000003.jsonl: 4 lines are not whole rows (first: line 1); left out",
        "step_000004.jsonl: 2 lines are not whole rows (first: line 1); left out",
    ]


def test_what_is_no_run_and_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Q1, answer("by simp"), accepted())])
    for wrong, said in [
        (tmp_path / "none", "it is not there"),
        (tmp_path, "holds no config.yaml"),
        ([run, run / ".." / "r"], "is given twice"),
        ([], "no runs"),
    ]:
        with pytest.raises(UserError, match=said):
            rlpost.harvest(wrong, tmp_path / "o.jsonl")
    for target, said in [
        (tmp_path, "is a folder"),
        (tmp_path / "x" / "o.jsonl", "does not exist"),
        (folder.data, "exists"),
    ]:
        with pytest.raises(UserError, match=said):
            rlpost.harvest(run, target)
    for options in ({"per_prompt": 0}, {"pick": "longest"}, {"contamination": "ignore"}):
        with pytest.raises(UserError, match=r"harvest: \w+ is"):
            rlpost.harvest(run, tmp_path / "o.jsonl", **options)
    (run / "transcripts" / "step_000000.jsonl").rename(run / "transcripts" / "step_000000.jsonl.partial")
    with pytest.raises(UserError, match="no transcripts; 1 unfinished"):
        rlpost.harvest(run, tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()


def test_runs_that_make_prompts_otherwise_are_not_one_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ROWS)
    one = folder.run([(Q1, answer("by simp"), accepted())], "one")
    two = folder.run(
        [(Prompt("a", text="p → p :="), answer("by simp"), accepted())], "two", data={"template": "{prompt} :="}
    )
    with pytest.raises(UserError, match=r"data\.template is None in .*one and '\{prompt\} :=' in .*two"):
        folder.harvest([one, two])


def test_nothing_accepted_is_said_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Q1, answer("by simp"), REJECTED)])
    assert main(["harvest", str(run), "--output", str(tmp_path / "o.jsonl")]) == 2
    assert capsys.readouterr().err == "rlpost: harvest: nothing to write of 1 rows (rejected: 1)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "train.jsonl"]


def test_the_command_says_what_became_of_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(tmp_path, ROWS)
    run = folder.run([(Q1, answer("by simp"), accepted()), (Q2, answer("by tauto"), REJECTED)])
    target = tmp_path / "o.jsonl"
    moved = folder.data.rename(tmp_path / "moved.jsonl")
    command = ["harvest", str(run), "--output", str(target), "--per-prompt", "0", f"data.train={moved}"]
    assert main(["harvest", str(run), f"data.train={moved}", "--output", str(tmp_path / "first.jsonl")]) == 0
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"{target}: 1 rows for 1 prompts, of 2 rows read" in out
    assert "1  rejected" in out
    assert main(command) == 2
    assert "exists; give another name, or --force" in capsys.readouterr().err
    assert main([*command, "--force", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sft"] == {
        "source": "jsonl", "train": str(target), "completion_key": "proof", "completion_prefix": "",
    }  # fmt: skip
    assert found["tokens"] == {"min": 3, "median": 3, "mean": 3.0, "max": 3}
    assert found["longest_row"] == 5


def test_messages_of_an_observation_are_told_from_text() -> None:
    chat = Prompt("a", messages=(Message("user", "q"),))
    group = Group(chat, (turns("a", "b", "c", roles=("tool",)),), (None,), (None,))
    [row] = lines(group, None, (None,))
    assert [segment.get("roles") for segment in row["segments"]] == [None, None, ["tool"], None]
