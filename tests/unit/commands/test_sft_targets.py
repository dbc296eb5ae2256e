"""Targets of a warm start as data has them. Not covered: training (tests/ray)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.commands.sft import read_pairs
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
