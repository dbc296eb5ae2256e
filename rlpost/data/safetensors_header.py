"""Headers of safetensors files: which tensors there are and where, without reading one.

safetensors' own reader maps the file: read slice by slice, all of it counts as resident in the end (measured: 512 MiB
read in slices of 16 MiB raise the peak by 517), and it does not tell a tensor's offset.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from rlpost.errors import DataError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Number formats of weights; the others are integers or packed quantised blocks."""

_LONGEST_HEADER = 100 * 2**20


def header(file: Path) -> tuple[int, dict[str, Any]]:
    """Byte offset of the tensor data, and by name each tensor's ``dtype``, ``shape`` and ``data_offsets``.

    Raises:
        DataError: if the header is damaged, contradicts itself, or does not fit the length of the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise DataError(f"{file}: cut short or no safetensors file ({size} bytes); copy it again")
        try:
            found: dict[str, Any] = json.loads(stream.read(length))
            found.pop("__metadata__", None)
            for name, entry in found.items():
                first, last = entry["data_offsets"]
                known = DTYPES.get(entry["dtype"])
                wanted = math.prod(entry["shape"]) * known.itemsize if known else last - first
                if not 0 <= first <= last or last - first != wanted:
                    raise DataError(f"{file}: {name!r} has {last - first} bytes for {entry['shape']}; copy it again")
                if last > size - 8 - length:
                    raise DataError(f"{file}: cut short, {name!r} ends beyond its {size} bytes; copy it again")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{file}: its header is damaged; copy it again") from None
    return 8 + length, found
