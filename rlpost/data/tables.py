"""Parquet files and Hugging Face data sets on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlpost.data.prompts import existing_file
from rlpost.errors import DataError, first_line


def read_parquet(path: str) -> list[dict[str, Any]]:
    """Rows of a Parquet file.

    Raises:
        DataError: if the file is missing or not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(existing_file(path)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({first_line(error)})") from None


def read_hf_disk(path: str, split: str | None = None) -> list[dict[str, Any]]:
    """Rows of a data set written by ``save_to_disk``.

    Args:
        path: folder written by ``save_to_disk``.
        split: name of the split of a ``DatasetDict``; None: its only split.

    Raises:
        DataError: if the folder holds no data set, or several splits and none is named.
    """
    from datasets import Dataset, load_from_disk

    if not Path(path).is_dir():
        raise DataError(f"{path}: no such folder; give one written by Dataset.save_to_disk")
    try:
        loaded = load_from_disk(path)
    except FileNotFoundError:
        raise DataError(f"{path}: not a data set written by save_to_disk") from None
    if isinstance(loaded, Dataset):
        return loaded.to_list()
    names = [str(name) for name in loaded]
    if split is None and len(names) == 1:
        split = names[0]
    if split not in loaded:
        raise DataError(f"{path}: split {split!r} not found; set split to one of {', '.join(names)}")
    return loaded[split].to_list()
