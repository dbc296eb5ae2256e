"""Targets of a warm start as data has them. Not covered: training (tests/ray)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.commands.sft import Shown, read_pairs
from rlpost.config.schema import RunConfig
from rlpost.errors import DataError


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
