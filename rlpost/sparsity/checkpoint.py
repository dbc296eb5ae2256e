"""Reads checkpoints of any size piece by piece: only the requested piece is in memory.

A checkpoint is a Hugging Face folder (one safetensors file or several), a single safetensors file, or a folder with a
LoRA adapter, which is read as its base model with the adapter merged in.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.data.safetensors_header import DTYPES, header
from rlpost.errors import DataError, first_line

_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_PICKLES = "pytorch_model*.bin"


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a checkpoint.

    Attributes:
        name: tensor name in the file.
        dtype: safetensors' name of the number format.
        shape: tensor shape.
        read: `read(start, stop)` returns the entries of the flattened tensor in that range, as a flat tensor. An
            optional third argument is a `Scratch` whose memory the result may use; it is valid until the next read with
            the same `Scratch`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[..., Tensor]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Entries per row: the size of the last dimension; a vector is one row."""
        return max(self.shape[-1], 1) if self.shape else 1

    def whole(self) -> Tensor:
        """Read the whole tensor, in its shape."""
        return self.read(0, self.size).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The readable tensors of a checkpoint by name, and those left out.

    Attributes:
        path: path it was opened by.
        tensors: tensors whose number format is in `DTYPES`, without an output head tied to the embeddings.
        left_out: the other tensors, name to reason.
    """

    path: str
    tensors: Mapping[str, Stored]
    left_out: Mapping[str, str]


def open_checkpoint(path: str | Path, base: Checkpoint | None = None, pickles: bool = False) -> Checkpoint:
    """Open a checkpoint for reading; the headers of its files are checked, its numbers are not.

    Args:
        path: a Hugging Face folder, a safetensors file, or the folder of a LoRA adapter.
        base: model that an adapter is merged into; unused for a model.
        pickles: also read ``pytorch_model*.bin``, with `torch.load` restricted to weights.

    Raises:
        DataError: if it is missing, damaged, of an unsupported kind, or an adapter without a base.
    """
    place = Path(path)
    try:
        if not str(path) or not place.exists():
            raise DataError(f"{path}: no such file or folder; give a Hugging Face model folder")
        if place.is_dir() and (place / _ADAPTER).is_file() and not (place / "config.json").is_file():
            return _merged(place, base)
        return _from_files(place, pickles)
    except PermissionError as error:
        raise DataError(f"{error.filename or path}: no permission to read it; ask its owner or copy it") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the disk or copy it again"
        ) from None


def _from_files(place: Path, pickles: bool) -> Checkpoint:
    files = _safetensors(place)
    if not files:
        return _pickled(place, pickles)
    tensors: dict[str, Stored] = {}
    left_out: dict[str, str] = {}
    for file in files:
        start, entries = header(file)
        descriptor = _Descriptor(file)
        for name, entry in entries.items():
            if entry["dtype"] not in DTYPES:
                left_out[name] = f"number format {entry['dtype']}"
                continue
            begin = start + entry["data_offsets"][0]
            tensors[name] = Stored(
                name, entry["dtype"], tuple(entry["shape"]), _reader(descriptor, begin, DTYPES[entry["dtype"]])
            )
    _leave_tied_head(place, tensors, left_out)
    return Checkpoint(str(place), dict(sorted(tensors.items())), left_out)


def _safetensors(place: Path) -> list[Path]:
    if place.is_file():
        if place.suffix == ".safetensors":
            return [place]
        if place.suffix in (".bin", ".pt", ".pth"):
            return []
        hint = "GGUF holds rounded blocks, not the weights that were trained" if place.suffix == ".gguf" else "unknown"
        raise DataError(f"{place}: not safetensors ({hint}); give the Hugging Face folder it was made from")
    if (place / _INDEX).is_file():
        try:
            listed = sorted({str(name) for name in json.loads((place / _INDEX).read_text())["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError):
            raise DataError(f"{place / _INDEX}: not an index of safetensors files; copy it again") from None
        if absent := [name for name in listed if not (place / name).is_file()]:
            raise DataError(f"{place}: {len(absent)} of {len(listed)} files of the index are missing, e.g. {absent[0]}")
        return [place / name for name in listed]
    found = sorted(place.glob("*.safetensors"))
    if not found and any(place.glob("*.gguf")):
        raise DataError(f"{place}: holds GGUF only, which is rounded; give the Hugging Face folder it was made from")
    if not found and not any(place.glob(_PICKLES)):
        raise DataError(f"{place}: no *.safetensors in it; give a Hugging Face model folder")
    return found


class _Descriptor:
    """An open file, closed when the last reader is gone."""

    def __init__(self, file: Path) -> None:
        self.file, self.number = file, os.open(file, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def fill(self, buffer: Any, offset: int) -> None:
        """Read until the buffer is full: the system returns a read of more than 2 GiB in parts."""
        view, done = memoryview(buffer), 0
        while done < len(view):
            count = os.preadv(self.number, [view[done:]], offset + done)
            if not count:
                raise DataError(f"{self.file}: ended while it was read; is it being written?")
            done += count


class Scratch:
    """Reusable memory: allocating memory for a piece costs as much as reading it."""

    def __init__(self) -> None:
        self.held = np.empty(0, np.uint8)

    def bytes(self, count: int) -> np.ndarray:
        """The first ``count`` bytes, uninitialised."""
        if len(self.held) < count:
            self.held = np.empty(count, np.uint8)
        return self.held[:count]


def _reader(descriptor: _Descriptor, begin: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    def read(start: int, stop: int, scratch: Scratch | None = None) -> Tensor:
        buffer = (scratch or Scratch()).bytes((stop - start) * dtype.itemsize)
        descriptor.fill(buffer, begin + start * dtype.itemsize)
        return torch.from_numpy(buffer).view(dtype)

    return read


def _leave_tied_head(place: Path, tensors: dict[str, Stored], left_out: dict[str, str]) -> None:
    config = place / "config.json"
    if place.is_dir() and config.is_file() and "lm_head.weight" in tensors:
        try:
            tied = json.loads(config.read_text()).get("tie_word_embeddings")
        except (ValueError, AttributeError):
            raise DataError(f"{config}: not a model's configuration; copy it again") from None
        if tied:
            del tensors["lm_head.weight"]
            left_out["lm_head.weight"] = "tied to the embeddings"


def _pickled(place: Path, allowed: bool) -> Checkpoint:
    files = [place] if place.is_file() else sorted(place.glob(_PICKLES))
    if not allowed:
        raise DataError(f"{files[0]}: a pickle, which can run code when it is read; add --pickle if you trust it")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            found |= torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        except OSError:
            raise
        except Exception as error:
            raise DataError(f"{file}: not a pickle of tensors only ({first_line(error)[:120]})") from None
    names = {dtype: name for name, dtype in DTYPES.items()}
    tensors: dict[str, Stored] = {}
    left_out: dict[str, str] = {}
    for name, tensor in sorted(found.items()):
        if not isinstance(tensor, Tensor) or tensor.dtype not in names:
            left_out[name] = f"number format {getattr(tensor, 'dtype', type(tensor).__name__)}"
            continue
        flat = tensor.detach().reshape(-1)
        tensors[name] = Stored(
            name, names[tensor.dtype], tuple(tensor.shape), lambda i, j, _=None, flat=flat: flat[i:j].clone()
        )
    _leave_tied_head(place, tensors, left_out)
    return Checkpoint(str(place), tensors, left_out)


def _merged(place: Path, base: Checkpoint | None) -> Checkpoint:
    """W + s B A, in float32 and then rounded to the base's format, as merging for serving does."""
    if base is None:
        raise DataError(f"{place}: an adapter; it can stand second, after the model it belongs to")
    scale = _scale(place)
    parts = _from_files(place / "adapter_model.safetensors", pickles=False).tensors
    tensors = dict(base.tensors)
    for name, first in parts.items():
        if ".lora_A." not in name:
            if ".lora_B." not in name:
                raise DataError(f"{place}: {name!r} is no plain LoRA matrix; merge it into a model folder first")
            continue
        target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        second = parts.get(name.replace(".lora_A.", ".lora_B."))
        if target not in base.tensors or second is None:
            raise DataError(f"{place}: {name!r} has no {target!r} in {base.path}; is it another model's adapter?")
        tensors[target] = _merge(base.tensors[target], first.whole().float(), second.whole().float() * scale)
    return Checkpoint(str(place), tensors, base.left_out)


def _scale(place: Path) -> float:
    """The factor s of s B A, for adapters that add nothing else to the base's weights."""
    try:
        settings: dict[str, Any] = dict(json.loads((place / _ADAPTER).read_text()))
        odd = [key for key in ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out") if settings.get(key)]
        # other initialisations take a part out of the base weights and move it into the adapter
        if settings.get("init_lora_weights", True) not in (True, False, None, "gaussian", "orthogonal", "eva"):
            odd.append(f"init_lora_weights={settings['init_lora_weights']}")
        if settings.get("peft_type") != "LORA" or odd:
            kind = f"{settings.get('peft_type')} {' '.join(odd)}".strip()
            raise DataError(f"{place}: an adapter of kind {kind!r}; merge it into a model folder first (PEFT's merge)")
        rank = settings["r"]
        return settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place / _ADAPTER}: damaged ({type(error).__name__}: {error}); save the adapter again"
        ) from None


def _merge(weight: Stored, first: Tensor, second: Tensor) -> Stored:
    if weight.shape != (second.shape[0], first.shape[1]):
        shape = (second.shape[0], first.shape[1])
        raise DataError(f"{weight.name}: the adapter is for {shape}, the model has {weight.shape}")

    def read(start: int, stop: int, scratch: Scratch | None = None) -> Tensor:
        columns = weight.columns
        top, bottom = start // columns, -(-stop // columns)
        held = weight.read(start, stop, scratch)
        change = (second[top:bottom] @ first).reshape(-1)[start - top * columns : stop - top * columns]
        return (held.float() + change).to(held.dtype)

    return Stored(weight.name, weight.dtype, weight.shape, read)


def as_float32(piece: Tensor) -> np.ndarray:
    """Entries as float32, which holds every value of the narrower formats."""
    return piece.float().numpy()


def as_bits(piece: Tensor) -> np.ndarray:
    """The bits of a bfloat16 piece, ``uint16``."""
    return piece.view(torch.uint16).numpy()
