"""Load weights into vLLM's model, and read back what it holds.

In one process this is a function call. With tensor parallelism each of vLLM's worker processes holds a shard: tensors
are passed in files in shared memory, because vLLM's calls to workers carry plain data only.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rlpost.rollout.vllm import packed_linear
from rlpost.rollout.vllm.lora import adapter_views, is_adapter
from rlpost.rollout.vllm.readback import hugging_face_views, join_shards, shard_views
from rlpost.sync.codec import checksum, checksums

Shapes = Mapping[str, tuple[int, ...]]


class Weights(Protocol):
    """Access to the weights of an engine's model, by published names and shapes."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace weights in place."""
        ...

    def patch(self, values: Mapping[str, Tensor], index: Mapping[str, Tensor], shapes: Shapes) -> None:
        """Write values ``[k]`` at positions ``[k]`` of the flattened tensors of those names, in place.

        Args:
            values: new values ``[k]`` by published name.
            index: positions ``[k]`` by published name, ascending.
            shapes: shapes of every published tensor, which give the offsets in stacked matrices.

        Raises:
            RuntimeError: for a tensor that the engine does not hold.
        """
        ...

    def checksums(self, shapes: Shapes) -> dict[str, str]:
        """Checksum of what the engine holds for each published name; ``missing`` if it holds nothing of that shape."""
        ...


class LocalWeights:
    """`Weights` of a model in this process.

    A tensor goes through vLLM's own loader until the loader has put a new value where `hugging_face_views` expects it.
    That location is then confirmed, and later versions are copied directly into it, which is faster.

    Args:
        llm: ``vllm.LLM``.
    """

    def __init__(self, llm: Any):
        self.llm = llm
        self.proved: set[str] = set()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Weights`."""
        self.llm.apply_model(functools.partial(_load, tensors=tensors, proved=self.proved))

    def patch(self, values: Mapping[str, Tensor], index: Mapping[str, Tensor], shapes: Shapes) -> None:
        """See `Weights`."""
        self.llm.apply_model(functools.partial(_patch, values=values, index=index, shapes=shapes))

    def checksums(self, shapes: Shapes) -> dict[str, str]:
        """See `Weights`."""

        def sums(model: Any) -> dict[str, str]:
            views = {**_views(model, shapes), **adapter_views(model, shapes)}
            held = checksums((name, view) for name, view in views.items() if view is not None)
            return {name: held.get(name, "missing") for name in views}

        return self.llm.apply_model(sums)[0]


class ShardedWeights:
    """`Weights` of a model in several worker processes of this machine.

    Args:
        llm: ``vllm.LLM``.
        shards: number of worker processes.
    """

    def __init__(self, llm: Any, shards: int):
        self.llm, self.shards = llm, shards

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Weights`; every worker reads all tensors and keeps its part."""
        from safetensors.torch import save_file

        with shared_folder() as folder:
            file = Path(folder) / "update.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
            self.llm.apply_model(functools.partial(_load_file, file=str(file)))

    def patch(self, values: Mapping[str, Tensor], index: Mapping[str, Tensor], shapes: Shapes) -> None:
        """See `Weights`: refused, because positions are those of whole tensors.

        `rlpost.config.update_kind` never selects such an update here.
        """
        raise RuntimeError("positions of whole tensors cannot be written into shards; use sync.kind: full")

    def checksums(self, shapes: Shapes) -> dict[str, str]:
        """See `Weights`; ``ranks differ`` if workers that should hold the same tensor do not."""
        from safetensors.torch import load_file

        with shared_folder() as folder:
            write = functools.partial(_write_shards, shapes=dict(shapes), shards=self.shards, folder=folder)
            parts = [load_file(file) for file in sorted(self.llm.apply_model(write))]
            return {name: _sum_of_parts([part.get(name) for part in parts], shape) for name, shape in shapes.items()}


def _load(model: Any, tensors: Mapping[str, Tensor], proved: set[str]) -> None:
    """Replace weights of a model in place, and add names whose location the loader confirmed to ``proved``."""
    views = _views(model, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    known = {name: view for name, view in views.items() if view is not None and name in proved}
    for name, view in known.items():
        view.copy_(tensors[name])
    unknown = {name: tensor for name, tensor in tensors.items() if name not in known}
    if unknown:
        # norms all start at one and biases at zero: a tensor that was equal before confirms nothing
        differed = [name for name, tensor in unknown.items() if not _holds(views[name], tensor)]
        model.load_weights(iter(unknown.items()))
        proved |= {name for name in differed if _holds(views[name], tensors[name])}
    packed_linear.repack(model)


def _holds(view: Tensor | None, tensor: Tensor) -> bool:
    return view is not None and view.dtype == tensor.dtype and torch.equal(view, tensor.to(view.device))


def _patch(model: Any, values: Mapping[str, Tensor], index: Mapping[str, Tensor], shapes: Shapes) -> None:
    views = _views(model, shapes)
    for name, new in values.items():
        view = views.get(name)
        if view is None:
            raise RuntimeError(f"the engine holds nothing of {name!r} {shapes.get(name)}; use sync.kind: full")
        # rows of a stacked matrix are contiguous, so flattening them makes no copy
        view.view(-1).index_copy_(0, index[name].to(view.device).long(), new.to(view.device))
    packed_linear.repack(model)


def _views(model: Any, shapes: Shapes) -> dict[str, Tensor | None]:
    """Views of the model's own weights, also if adapters wrap them."""
    held = {name.replace(".base_layer.", "."): parameter for name, parameter in model.named_parameters()}
    return hugging_face_views(held, _stacked(model), {n: s for n, s in shapes.items() if not is_adapter(n)})


def _load_file(model: Any, file: str) -> None:
    from safetensors.torch import load_file

    model.load_weights(iter(load_file(file).items()))
    packed_linear.repack(model)


def _write_shards(model: Any, shapes: Shapes, shards: int, folder: str) -> str:
    """In a worker, write its views of the published tensors to a file; returns its name, which sorts by rank."""
    from safetensors.torch import save_file
    from vllm.distributed import get_tensor_model_parallel_rank

    views = shard_views(dict(model.named_parameters()), _stacked(model), shapes, shards)
    file = Path(folder) / f"rank{get_tensor_model_parallel_rank():05}.safetensors"
    save_file({name: view.detach().cpu().clone() for name, view in views.items() if view is not None}, file)
    return str(file)


def _sum_of_parts(parts: list[Tensor | None], shape: tuple[int, ...]) -> str:
    present = [part for part in parts if part is not None]
    if len(present) < len(parts):
        return "missing"
    try:
        whole = join_shards(present, shape)
    except ValueError:
        return "ranks differ"
    return "missing" if whole is None else checksum(whole)


def _stacked(model: Any) -> Mapping[str, list[str]]:
    return getattr(model, "packed_modules_mapping", {})


def shared_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, in shared memory if that is writable."""
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(prefix="rlpost-", dir=memory if os.access(memory, os.W_OK) else None)
