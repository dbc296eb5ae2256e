"""Parquet files and Hugging Face data sets on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlpost.data.jsonl import existing_file
from rlpost.errors import DataError, describe_error


def read_parquet(path: str) -> list[dict[str, Any]]:
    """Rows of a Parquet file. A number of single precision is the shortest one that it stands for (0.1, where plain
    conversion makes 0.10000000149011612 of it).

    Raises:
        DataError: if the file is missing, damaged or not Parquet, or two columns have one name.
    """
    import pyarrow.parquet as pq

    file = existing_file(path)
    try:
        names: list[str] = pq.read_schema(file).names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"column {twice[0]!r} is there twice; rename one")
        return _rows(pq.read_table(file))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # of many types, not all of them pyarrow's: a damaged file fails anywhere
        raise DataError(f"{path}: not a Parquet file that can be read ({describe_error(error)})") from error


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
        if isinstance(loaded, Dataset):
            return loaded.to_list()
        names = [str(name) for name in loaded]
        if split is None and len(names) == 1:
            split = names[0]
        if split in loaded:
            return loaded[split].to_list()
    except FileNotFoundError:
        raise DataError(f"{path}: not a data set written by save_to_disk") from None
    except Exception as error:  # of many libraries' types
        raise DataError(f"{path}: not a data set that can be read ({describe_error(error)})") from error
    raise DataError(f"{path}: split {split!r} not found; set split to one of {', '.join(names)}")


def _rows(table: Any) -> list[dict[str, Any]]:
    import pyarrow as pa

    rows: list[dict[str, Any]] = table.to_pylist()
    for column in table.schema:
        if pa.types.is_float32(column.type):
            for row in rows:
                if row[column.name] is not None:
                    row[column.name] = float(str(np.float32(row[column.name])))
    return rows
