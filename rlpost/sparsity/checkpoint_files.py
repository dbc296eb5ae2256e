"""Which files of a folder make up a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from rlpost.errors import DataError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = "pytorch_model*.bin"


def weight_files(place: Path) -> tuple[list[Path], list[Path]]:
    """The safetensors files of a checkpoint, and those next to them that are not part of it; twice none for pickles.

    Raises:
        DataError: if there are none, or some of a set are missing.
    """
    if place.is_file():
        if place.suffix == ".safetensors":
            return [place], []
        if place.suffix in (".bin", ".pt", ".pth"):
            return [], []
        hint = "GGUF holds rounded blocks, not the weights that were trained" if place.suffix == ".gguf" else "unknown"
        raise DataError(f"{place}: not safetensors ({hint}); give the Hugging Face folder it was made from")
    found = sorted(place.glob("*.safetensors"))
    if (place / INDEX).is_file():
        listed = sorted(set(indexed(place).values()))
        if absent := [name for name in listed if not (place / name).is_file()]:
            raise DataError(f"{place}: {len(absent)} of {len(listed)} files of the index are missing, e.g. {absent[0]}")
        return [place / name for name in listed], [file for file in found if file.name not in listed]
    if place / SINGLE in found:
        return [place / SINGLE], [file for file in found if file.name != SINGLE]
    if not found and any(place.glob("*.gguf")):
        raise DataError(f"{place}: holds GGUF only, which is rounded; give the Hugging Face folder it was made from")
    if not found and not any(place.glob(PICKLES)):
        raise DataError(f"{place}: no *.safetensors in it; give a Hugging Face model folder")
    return whole_set(place, found), []


def indexed(place: Path) -> dict[str, str]:
    """File name by tensor name from a folder's index; empty without one.

    Raises:
        DataError: if it is damaged.
    """
    file = place / INDEX
    if not place.is_dir() or not file.is_file():
        return {}
    try:
        return {str(name): str(part) for name, part in json.loads(file.read_text())["weight_map"].items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DataError(f"{file}: not an index of safetensors files; copy it again") from None


def whole_set(place: Path, files: Sequence[Path]) -> list[Path]:
    """The files themselves, if none of those that are numbered ``-00001-of-00002`` is missing.

    Raises:
        DataError: if one is.
    """
    for file in files:
        numbered = re.fullmatch(r"(.*-)(\d+)(-of-)(\d+)(\.\w+)", file.name)
        if numbered is None:
            continue
        start, digits, middle, total, end = numbered.groups()
        names = [f"{start}{number:0{len(digits)}}{middle}{total}{end}" for number in range(1, int(total) + 1)]
        if absent := [name for name in names if not (place / name).is_file()]:
            raise DataError(
                f"{place}: {len(absent)} of {int(total)} files are missing, e.g. {absent[0]}; copy it again"
            )
    return list(files)
