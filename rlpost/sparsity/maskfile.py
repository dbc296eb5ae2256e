"""A mask file written while two checkpoints are compared, without holding it; `rlpost.tuning.masks` has the format."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xxhash
from torch import Tensor

from rlpost.data.safetensors_header import DTYPES
from rlpost.errors import DataError
from rlpost.sparsity.compare import PIECE, cast_changed
from rlpost.sparsity.pairs import Pair
from rlpost.sparsity.stored import Stored
from rlpost.sync.codec import raw_bytes
from rlpost.tuning import masks


class MaskFile:
    """Collects the bits of changed casts in a temporary file next to the final one while pieces are compared.

    Args:
        file: mask file to write, ending in ``.safetensors``; its folder must exist.
        pair: the two checkpoints that are compared.

    Raises:
        DataError: if the file cannot be written there.
    """

    def __init__(self, file: str | Path, pair: Pair) -> None:
        self.file, self.pair = Path(file), pair
        self.shapes = {name: pair.before.tensors[name].shape for name in pair.names}
        self.counts, self.lock = dict.fromkeys(self.shapes, 0), Lock()
        self.places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, shape in self.shapes.items():
            begin, end = end, end + -(-math.prod(shape) // 8)
            self.places[name] = begin, end
        self.part, self.whole = (self.file.with_name(self.file.name + end) for end in (".part", ".whole"))
        if self.file.is_dir() or self.file.suffix != ".safetensors" or self._is_read():
            raise DataError(f"{file}: no place for a mask; name a file of its own that ends in .safetensors")
        with self._written():
            self.descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def put(self, name: str, start: int, old: Tensor, new: Tensor) -> None:
        """Write the bits of one piece, which begins at a multiple of eight entries."""
        bits = np.packbits(cast_changed(old, new).numpy(), bitorder="little")
        left, place = memoryview(bits.tobytes()), self.places[name][0] + start // 8
        with self._written():
            while left:
                done = os.pwrite(self.descriptor, left, place)
                left, place = left[done:], place + done
        with self.lock:
            self.counts[name] += int(np.bitwise_count(bits).sum())

    def finish(self, made: Mapping[str, Any]) -> Path:
        """Write the mask file; ``made`` goes into its metadata."""
        base = masks.hash_of(
            (name, DTYPES[stored.dtype], stored.shape, _digest(stored))
            for name, stored in self.pair.before.tensors.items()
            if name not in self.pair.before.tied  # a model has a tied head under the embeddings' name only
        )
        about = masks.metadata(self.shapes, self.counts, base, made)
        header: dict[str, Any] = {"__metadata__": about}
        for name, (begin, end) in self.places.items():
            header[name] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with self._written():
            with self.whole.open("wb") as out, self.part.open("rb") as bits:
                out.write(len(text).to_bytes(8, "little") + text)
                shutil.copyfileobj(bits, out, PIECE)
            self.whole.replace(self.file)
        return self.file

    def close(self) -> None:
        """Remove the temporary files."""
        os.close(self.descriptor)
        for rest in (self.part, self.whole):
            rest.unlink(missing_ok=True)

    def _is_read(self) -> bool:
        """Whether the path belongs to a checkpoint that is compared."""
        roots = [Path(one.path) for one in (self.pair.before, self.pair.after)]
        here = self.file.resolve()
        return any(here in (root.resolve(), *(file.resolve() for file in root.glob("*"))) for root in roots)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.file}: cannot be written ({error.strerror or error}); give another place") from None


def _digest(stored: Stored) -> str:
    """The same as `rlpost.sync.codec.checksum`, computed piece by piece."""
    state = xxhash.xxh3_128()
    for at in range(0, stored.size, PIECE):
        state.update(raw_bytes(stored.read(at, min(at + PIECE, stored.size))).data)
    return state.hexdigest()
