"""Targets of a warm start as data has them. Not covered: training (tests/ray)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlpost
from rlpost.commands.sft import Shown, read_pairs, token_rows
from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig, SftSection
from rlpost.data import load, wordlevel
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import DataError
from rlpost.observability import transcripts
from rlpost.observability.runfolder import RunFolder
from rlpost.trajectory import Group, Ticket, one_turn
from rlpost.types import SpanReward, Verdict
from support.tokenizer_kinds import write


def targets(folder: Path, value: Any) -> tuple[str, ...]:
    code = folder / "mine.py"
    code.write_text(
        f"import numpy as np\nnan = float('nan')\ndef rows(path): return [{{'prompt': 'q', 'proof': {value}}}]\n"
    )
    config = RunConfig.model_validate({"data": {"source": f"{code}:rows"}, "sft": {"train": "x"}})
    assert config.sft is not None
    [(_, found)] = read_pairs(config, config.sft)
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'4'", ("4",)),
        ("4", ("4",)),
        ("1e-05", ("0.00001",)),
        ("['a', 'b', 'c']", ("a", "b", "c")),
        ("np.array(['a', 'b', 'c'])", ("a", "b", "c")),
        ("['4']", ("4",)),
    ],
)
def test_a_target_is_text_or_a_number(tmp_path: Path, value: str, expected: tuple[str, ...]) -> None:
    assert targets(tmp_path, value) == expected


@pytest.mark.parametrize(
    "value", ["None", "nan", "True", "[]", "['a', 'b']", "['a', None, 'c']", "b'x'", "{'a': 1}", "'\\ud83d'", "[['a']]"]
)
def test_another_target_is_refused_with_row_and_column(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match=r"^sft\.train, row 0: column 'proof' holds") as caught:
        targets(tmp_path, value)
    assert "\n" not in str(caught.value)


def test_a_chat_that_ends_with_the_answer_is_cut_where_asked(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "4"}]
    file.write_text(json.dumps({"prompt": chat, "proof": "4"}))
    for rule, count in (("cut", 1), ("continue", 2)):
        config = RunConfig.model_validate({"data": {"last_assistant": rule}, "sft": {"train": str(file)}})
        assert config.sft is not None
        [(prompt, _)] = read_pairs(config, config.sft)
        assert len(prompt.messages or ()) == count
    config = RunConfig.model_validate({"sft": {"train": str(file)}})
    assert config.sft is not None
    with pytest.raises(DataError, match=r"sft\.train, row 0: the chat ends with the assistant's turn"):
        read_pairs(config, config.sft)


def test_rows_may_come_from_another_source_than_prompts_and_repeat_an_id(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"id": "a", "prompt": "q", "proof": text} for text in ("one", "two")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections = {"data": {"source": "arithmetic", "train": {"count": 1}}, "sft": {"source": "jsonl", "train": str(file)}}
    config = RunConfig.model_validate(sections)
    assert config.sft is not None
    assert [(prompt.id, target) for prompt, target in read_pairs(config, config.sft)] == [
        ("a", ("one",)),
        ("a", ("two",)),
    ]


def test_a_turn_of_weight_0_is_shown_and_not_learned(tmp_path: Path) -> None:
    found = targets(tmp_path, "[{'content': 'a', 'weight': 0}, 'b', {'content': 'c', 'weight': 1}]")
    assert found == ("a", "b", "c")
    assert [isinstance(text, Shown) for text in found] == [True, False, False]


@pytest.mark.parametrize(
    "value",
    [
        "[{'content': 'a', 'weight': 0}]",  # nothing would be learned
        "['a', {'content': 'b', 'weight': 0}, 'c']",  # the environment's
        "[{'content': 'a', 'weight': 0.5}, 'b', 'c']",
        "[{'content': None, 'weight': 0}, 'b', 'c']",
        "[{'text': 'a', 'weight': 0}, 'b', 'c']",
    ],
)
def test_another_weight_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match="weight: 0"):
        targets(tmp_path, value)


def test_the_loss_leaves_out_what_is_shown(tmp_path: Path) -> None:
    from rlpost.commands.sft import _row
    from rlpost.data import wordlevel
    from rlpost.data.tokenizer import TextCodec
    from rlpost.types import Prompt

    wordlevel.build(["q a b c"], tmp_path, 64)
    made = TextCodec(tmp_path)
    row = _row(made, Prompt("p", text="q"), (Shown(" a"), " b", " c"), 64)
    end = made.tokenizer.eos_token_id
    ids = [made.tokenizer.convert_tokens_to_ids(piece) for piece in ("q", " a", " b", " c")]
    assert row["input_ids"] == [ids[0], ids[1], end, ids[2], ids[3], end]
    assert row["labels"] == [-100, -100, -100, -100, ids[3], end]


def harvested(folder: Path, rows: list[dict[str, Any]], **sft: Any) -> RunConfig:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunConfig.model_validate({"sft": {"train": str(file), **sft}})


@pytest.mark.parametrize(("taken", "set_"), [("", " "), (" ", ""), (" ", "by ")])
def test_another_prefix_than_the_harvest_took_off_is_refused(tmp_path: Path, taken: str, set_: str) -> None:
    row = {"prompt": "q", "proof": "rfl", "harvest": {"completion_prefix": taken}}
    config = harvested(tmp_path, [row], completion_prefix=set_)
    assert config.sft is not None
    with pytest.raises(DataError, match=f"row 0: rlpost harvest took .*{taken!r} off its answer, and it is {set_!r}"):
        read_pairs(config, config.sft)
    same = harvested(tmp_path, [row], completion_prefix=taken)
    assert same.sft is not None
    assert [target for _, target in read_pairs(same, same.sft)] == [(f"{taken}rfl",)]


CHAT = [{"role": "system", "content": "Prove."}, {"role": "user", "content": "p → p"}]
PREFILLED = [*CHAT, {"role": "assistant", "content": "by "}]


@pytest.mark.parametrize("kind", ["byte_level", "gemma", "llama2"])
@pytest.mark.parametrize(
    ("prompt", "data"), [("p → p :=", {}), (CHAT, {}), (PREFILLED, {"last_assistant": "continue"})]
)
def test_what_was_sampled_is_what_is_trained_on(tmp_path: Path, kind: str, prompt: Any, data: dict[str, Any]) -> None:
    codec = TextCodec(write(tmp_path / "model", kind))
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"id": "a", "prompt": prompt}) + "\n")
    config = from_dict(
        {"run": {"name": "r", "output_dir": str(tmp_path / "runs")}, "model": {"path": str(tmp_path / "model")}}
        | {"data": {"train": str(file), **data}, "scoring": {"verifier": "lean.cli"}}
    )
    [asked] = load.prompts(config.data, "train")
    begin = codec.encode(asked)
    ids = codec.encode_target(" fun h => h\n  -- ∎")  # as an engine samples it, the end token included
    text, _ = codec.decode(ids)
    folder = RunFolder(config, resume=False)
    folder.create()
    verdict = Verdict("accepted", 1.0, "proved", assurance="kernel_replayed")
    one = one_turn(begin, ids, text)
    group = Group(asked, (one,), (verdict,), ((SpanReward(0, one.length, 1.0),),))
    transcripts.write(folder.transcript(0), transcripts.lines(group, Ticket(0, "a", (1,), 0), (0.5,)))
    found = rlpost.harvest(folder.path, tmp_path / "out.jsonl")
    further = config.model_copy(update={"sft": SftSection(**found.sft)})
    assert further.sft is not None
    [row], notes = token_rows(codec, read_pairs(further, further.sft), 512)
    assert tuple(row["input_ids"]) == (*begin, *ids)
    assert row["labels"] == [-100] * len(begin) + list(ids)
    assert notes == ()


def test_words_that_run_together_are_not_trained_on_as_the_unknown_word(tmp_path: Path) -> None:
    wordlevel.build(["fun p h1 => h1"], tmp_path / "model", 64)
    codec = TextCodec(tmp_path / "model")
    source = {"completion_prefix": "", "tokens": 5}
    rows = [
        {"prompt": "p", "proof": text, "harvest": source} for text in ("fun p => h1", "fun ph1 => h1", "fun p p => h1")
    ]
    config = harvested(tmp_path, rows)
    assert config.sft is not None
    found, notes = token_rows(codec, read_pairs(config, config.sft), 64)
    assert len(found) == 2
    assert [note.split(":")[1].strip()[:27] for note in notes] == [
        "1 of 3 rows are left out",
        "1 of 3 rows have another nu",
    ]
    config = harvested(tmp_path, rows[1:2])
    assert config.sft is not None
    with pytest.raises(DataError, match="answers of all 1 rows have words that the tokenizer does not know"):
        token_rows(codec, read_pairs(config, config.sft), 64)
