"""Reads checkpoints of any size piece by piece: only the requested piece is in memory.

A checkpoint is a Hugging Face folder (one safetensors file or several), a single safetensors file, or a folder with a
LoRA adapter, which is read as its base model with the adapter merged in.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.data.safetensors_header import DTYPES, header
from rlpost.errors import DataError, first_line
from rlpost.sparsity.checkpoint_files import PICKLES, indexed, weight_files, whole_set
from rlpost.sparsity.stored import Stored
from rlpost.sparsity.uncompared import quantised, tied_head

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The readable tensors of a checkpoint by name, and those left out.

    Attributes:
        path: path it was opened by.
        tensors: tensors whose number format is in `DTYPES`, without parts of quantised layers and without an output
            head that is tied to the embeddings and equals them.
        left_out: the other tensors (and files), name to reason.
        tied: the head's values where it is tied: those of the embeddings.
        lost: number of entries of ``left_out``, but for a tied head.
        merged: number of layers that an adapter was merged into.
    """

    path: str
    tensors: Mapping[str, Stored]
    left_out: Mapping[str, str]
    tied: Mapping[str, Stored] = field(default_factory=dict[str, Stored])
    lost: int = 0
    merged: int = 0


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
    files, others = weight_files(place)
    if not files:
        return _pickled(place, pickles)
    listed = indexed(place)
    tensors: dict[str, Stored] = {}
    left_out = {file.name: f"another file next to {files[0].name}" for file in others}
    lost = 0
    seen: dict[str, Path] = {}
    for file in files:
        start, entries = header(file)
        descriptor = _Descriptor(file)
        for name, entry in entries.items():
            if listed.get(name, file.name) != file.name:
                continue
            if name in seen:
                raise DataError(f"{place}: {name!r} is in {seen[name].name} and in {file.name}; keep one model's files")
            seen[name] = file
            if entry["dtype"] not in DTYPES:
                left_out[name] = f"number format {entry['dtype']}"
                lost += math.prod(entry["shape"])
                continue
            begin = start + entry["data_offsets"][0]
            tensors[name] = Stored(
                name, entry["dtype"], tuple(entry["shape"]), _reader(descriptor, begin, DTYPES[entry["dtype"]])
            )
    if absent := sorted(set(listed) - set(seen)):
        raise DataError(
            f"{place}: its files lack {len(absent)} of {len(listed)} tensors of the index, e.g. {absent[0]}; copy it"
        )
    return _complete(place, tensors, left_out, lost)


def _complete(place: Path, tensors: dict[str, Stored], left_out: dict[str, str], lost: int) -> Checkpoint:
    """A checkpoint without what would be compared wrongly."""
    for name, reason in quantised({name: one.dtype for name, one in tensors.items()}, left_out).items():
        lost += tensors.pop(name).size
        left_out[name] = reason
    tied = tied_head(place, tensors, left_out)
    return Checkpoint(str(place), dict(sorted(tensors.items())), left_out, tied, lost)


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


def _pickled(place: Path, allowed: bool) -> Checkpoint:
    files = [place] if place.is_file() else whole_set(place, sorted(place.glob(PICKLES)))
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
    lost = 0
    for name, tensor in sorted(found.items()):
        if not isinstance(tensor, Tensor) or tensor.dtype not in names:
            left_out[name] = f"number format {getattr(tensor, 'dtype', type(tensor).__name__)}"
            lost += tensor.numel() if isinstance(tensor, Tensor) else 0
            continue
        flat = tensor.detach().reshape(-1)
        tensors[name] = Stored(
            name, names[tensor.dtype], tuple(tensor.shape), lambda i, j, _=None, flat=flat: flat[i:j].clone()
        )
    return _complete(place, tensors, left_out, lost)


def _merged(place: Path, base: Checkpoint | None) -> Checkpoint:
    """W + s B A, in float32 and then rounded to the base's format, as merging for serving does."""
    if base is None:
        raise DataError(f"{place}: an adapter; it can stand second, after the model it belongs to")
    scale = _scale(place)
    parts = _from_files(place / "adapter_model.safetensors", pickles=False)
    if parts.left_out:
        name, reason = next(iter(parts.left_out.items()))
        raise DataError(f"{place}: {name!r} cannot be merged ({reason}); merge it into a model folder first")
    tensors = dict(base.tensors)
    merged: set[str] = set()
    for name, first in parts.tensors.items():
        if ".lora_A." not in name:
            if ".lora_B." not in name:
                raise DataError(f"{place}: {name!r} is no plain LoRA matrix; merge it into a model folder first")
            if name.replace(".lora_B.", ".lora_A.") not in parts.tensors:
                raise DataError(f"{place}: {name!r} has no lora_A next to it; save the adapter again")
            continue
        target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        second = parts.tensors.get(name.replace(".lora_A.", ".lora_B."))
        if second is None:
            raise DataError(f"{place}: {name!r} has no lora_B next to it; save the adapter again")
        if target in base.tied:
            raise DataError(
                f"{place}: {name!r} is of an output head that {base.path} ties to the embeddings; merge it into an "
                "untied model folder first"
            )
        if target not in base.tensors:
            raise DataError(f"{place}: {name!r} has no {target!r} in {base.path}; is it another model's adapter?")
        tensors[target] = _merge(base.tensors[target], first.whole().float(), second.whole().float() * scale)
        merged.add(target)
    _check_targets(place, merged)
    return Checkpoint(str(place), tensors, base.left_out, base.tied, base.lost, len(merged))


def _check_targets(place: Path, merged: set[str]) -> None:
    """Refuse an adapter whose file lacks a layer that its configuration names."""
    targets = json.loads((place / _ADAPTER).read_text()).get("target_modules")
    layers = [name.removesuffix(".weight") for name in merged]
    for target in [] if isinstance(targets, str) or targets is None else targets:
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            raise DataError(f"{place}: its configuration names {target!r}, its file has no matrix of it; save it again")


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
