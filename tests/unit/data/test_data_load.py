"""Loading data sets that a configuration names. Not covered: the readers themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpost.config.schema import DataSection
from rlpost.data.load import prompts
from rlpost.errors import DataError, UserError


def source(folder: Path) -> str:
    file = folder / "mine.py"
    file.write_text("def rows(count, word='w'):\n    return [{'prompt': f'{word}{i}'} for i in range(count)]\n")
    return f"{file}:rows"


def test_a_path_is_the_sources_first_argument(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"id": "x", "q": "1+1"}) + "\n")
    section = DataSection(source="jsonl", train=str(file), eval=str(file), template="{q}=")
    assert [(p.id, p.text) for p in prompts(section, "train")] == [("x", "1+1=")]
    assert prompts(section, "eval") == prompts(section, "train")


def test_a_function_of_ones_own_is_given_keyword_arguments(tmp_path: Path) -> None:
    section = DataSection(source=source(tmp_path), train={"count": 2, "word": "v"})
    assert [p.text for p in prompts(section, "train")] == ["v0", "v1"]


def test_bad_arguments_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.train: source .* cannot take {'size': 2}"):
        prompts(DataSection(source=source(tmp_path), train={"size": 2}), "train")
    with pytest.raises(DataError, match=r"data\.train: source .* found no rows"):
        prompts(DataSection(source=source(tmp_path), train={"count": 0}), "train")
    with pytest.raises(DataError, match=r"data\.eval: missing"):
        prompts(DataSection(source=source(tmp_path), train={"count": 1}), "eval")
    with pytest.raises(DataError, match=r"data\.train: source 'jsonl' cannot take {}"):
        prompts(DataSection(), "train")


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(UserError, match="source 'jsonlines' is not known; did you mean jsonl"):
        prompts(DataSection(source="jsonlines", train="x"), "train")


def test_messages_name_the_split_and_row(tmp_path: Path) -> None:
    section = DataSection(source=source(tmp_path), train={"count": 1}, eval={"count": 1}, prompt_key="q")
    with pytest.raises(DataError, match=r"^data\.eval, row 0: no column 'q'"):
        prompts(section, "eval")
