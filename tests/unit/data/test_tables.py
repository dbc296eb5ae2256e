"""Parquet files and data sets on disk. Not covered: prompts made from the rows (test_prompts.py)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from rlpost.data.tables import read_hf_disk, read_parquet
from rlpost.errors import DataError

ROWS = [{"prompt": "∀ p", "n": 1}, {"prompt": "q", "n": 2}]


def test_parquet_rows_in_order(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read_parquet(str(tmp_path / "a.parquet")) == ROWS


def test_nested_parquet_messages_arrive_as_lists_of_mappings(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "hi"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_parquet(str(tmp_path / "a.parquet")) == rows


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1" + b"\x00" * 20 + b"\x08\x00\x00\x00PAR1"])
def test_what_is_not_parquet_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(content)
    with pytest.raises(DataError, match="not a Parquet file") as caught:
        read_parquet(str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_parquet(str(tmp_path / "a.parquet"))


@pytest.fixture
def splits(tmp_path: Path) -> str:
    folder = str(tmp_path / "both")
    DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])}).save_to_disk(folder)
    return folder


def test_a_data_set_on_disk(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    assert read_hf_disk(str(tmp_path / "one")) == ROWS


def test_a_named_split(splits: str) -> None:
    assert read_hf_disk(splits, split="test") == ROWS[:1]


def test_the_only_split_needs_no_name(tmp_path: Path) -> None:
    DatasetDict({"validation": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "one"))
    assert read_hf_disk(str(tmp_path / "one")) == ROWS


@pytest.mark.parametrize("split", [None, "dev"])
def test_a_split_that_is_not_there_names_those_that_are(splits: str, split: str | None) -> None:
    with pytest.raises(DataError, match="set split to one of train, test"):
        read_hf_disk(splits, split=split)


def test_folders_that_hold_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_hf_disk(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a data set written by save_to_disk"):
        read_hf_disk(str(tmp_path / "empty"))
