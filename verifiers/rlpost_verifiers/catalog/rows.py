"""Rows of published data, in whichever container they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlpost.data.jsonl import existing_file, read_jsonl
from rlpost.errors import DataError
from rlpost.plugins.registry import resolve

_PARQUET = b"PAR1"
"""First bytes of a Parquet file."""


def read_rows(path: str, split: str | None = None) -> list[dict[str, Any]]:
    """Rows of a folder written by ``save_to_disk``, of a Parquet file, or of JSON lines; the content says which.

    Args:
        path: the file or folder.
        split: name of the split, for a folder that holds several.

    Raises:
        DataError: if there is no such path, or it cannot be read.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return resolve("sources", "hf_disk")(str(folder), split)
    if split is not None:
        raise DataError(f"{path}: no folder written by save_to_disk, so there is no split {split!r}; leave split out")
    with existing_file(path).open("rb") as file:
        parquet = file.read(len(_PARQUET)) == _PARQUET
    return resolve("sources", "parquet")(path) if parquet else read_jsonl(path)
