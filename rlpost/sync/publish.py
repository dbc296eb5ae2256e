"""A policy version as an update for the engines.

An update holds every tensor, an adapter, the values at known positions, or what differs from the previous version.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rlpost.sync.codec import checksum, checksums, decode, encode
from rlpost.types import TensorPayload, UpdateKind, WeightManifest, WeightUpdate

ADAPTER = "{}.lora_{}.weight"
"""Name of an adapter's matrix in an update, from the layer's name and ``A`` or ``B``."""


class Publisher:
    """Makes successive updates of one kind.

    A learner that has just been created or restored cannot know what engines hold, so its first update does not build
    on earlier ones.

    Args:
        kind: what an update holds: ``full``, ``adapter``, ``values`` or ``diff``.
        tuning: a `rlpost.tuning.method.TuningMethod` that provides what the kind sends.
        dtype: dtype in which engines hold weights.
        gather: makes sharded parameters whole; see `rlpost.tuning.method.GatherParameters`.
        writes: whether this rank sends; the other ranks take part in gathering.
        dense: ``diff`` only: share of changed entries above which a tensor is sent whole.
        shared: let updates share the model's memory: a receiver must be done with one, or have copied it (as Ray
            does), before the model changes. False if ``gather`` shards parameters again after its block.
    """

    def __init__(
        self,
        kind: UpdateKind,
        tuning: Any,
        dtype: torch.dtype,
        gather: Any,
        writes: bool,
        dense: float = 0.3,
        shared: bool = False,
    ):
        self.kind, self.tuning, self.dtype, self.gather = kind, tuning, dtype, gather
        self.writes, self.dense, self.encode = writes, dense, functools.partial(encode, shared=shared)
        self.declared: set[str] = set()
        self.base: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.previous: dict[str, Tensor] = {}

    def update(self, version: int) -> WeightUpdate | None:
        """The current weights as a version; None on ranks that do not send."""
        match self.kind:
            case "full":
                return self.full(version)
            case "adapter":
                return self._adapter(version)
            case "values":
                return self._values(version)
            case "diff":
                return self._diff(version)

    def forget(self) -> None:
        """Forget what engines hold, after the model was restored."""
        self.declared = set()
        self.base, self.shapes, self.previous = {}, {}, {}

    def full(self, version: int) -> WeightUpdate | None:
        """Every tensor, whatever the kind, for an engine that has missed updates."""
        payload = {name: self.encode(tensor) for name, tensor in self._weights() if self.writes}
        if not self.writes:
            return None
        if self.kind == "diff":
            self.previous = {name: decode(value).clone() for name, value in payload.items()}
        shapes = {name: value.shape for name, value in payload.items()}
        return _finish(version, "full", checksums(payload.items()), shapes, payload)

    def _adapter(self, version: int) -> WeightUpdate | None:
        """The adapter; the base is not sent, only its checksums."""
        adapter = self.tuning.adapter(self.gather)
        if not self.base:
            self._know_base()
        if not self.writes:
            return None
        payload: dict[str, TensorPayload] = {}
        for name, pair in adapter.matrices.items():
            for letter, matrix in zip("AB", pair, strict=True):
                payload[ADAPTER.format(name, letter)] = self.encode(matrix.to(self.dtype))
        shapes = {**self.shapes, **{name: value.shape for name, value in payload.items()}}
        return _finish(version, "adapter", {**self.base, **checksums(payload.items())}, shapes, payload)

    def _know_base(self) -> None:
        original: Mapping[str, Tensor] = self.tuning.original
        for name, parameter in self.tuning.base():
            with self.gather([parameter]):
                held = original.get(name, parameter.detach()).to(self.dtype)
                self.base[name], self.shapes[name] = checksum(held), tuple(held.shape)

    def _values(self, version: int) -> WeightUpdate | None:
        """Values of the kept entries; their positions are sent with the first update only."""
        chosen: Mapping[str, tuple[Tensor, Tensor]] = self.tuning.values()
        self.base |= checksums(self._held_by_values(chosen))
        new = chosen.keys() - self.declared
        self.declared |= new
        if not self.writes:
            return None
        payload = {name: self.encode(values.to(self.dtype)) for name, (_, values) in chosen.items()}
        index = {name: self.encode(chosen[name][0]) for name in new}
        return _finish(version, "values", dict(self.base), dict(self.shapes), payload, index)

    def _held_by_values(self, chosen: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """Tensors that need a checksum: those without mask entries keep their first one."""
        for name, tensor in self._weights():
            if self.writes and (name in chosen or name not in self.base):
                self.shapes[name] = tuple(tensor.shape)
                yield name, tensor

    def _diff(self, version: int) -> WeightUpdate | None:
        """New values and their positions where bits differ from the previous version."""
        if not self.previous:
            return self.full(version)
        payload: dict[str, TensorPayload] = {}
        index: dict[str, TensorPayload] = {}
        sums: dict[str, str] = {}
        for name, tensor in self._weights():
            if not self.writes:
                continue
            held = self.previous[name]
            new = tensor.detach().to("cpu")
            sums[name], self.shapes[name] = checksum(new), tuple(new.shape)
            places = changed(held, new)
            if len(places) > self.dense * held.numel():
                payload[name] = self.encode(new)
                held.copy_(new)
            elif len(places):
                values = new.reshape(-1)[places]
                payload[name], index[name] = self.encode(values), self.encode(places.to(_index_dtype(held.numel())))
                held.view(-1)[places] = values
        return _finish(version, "diff", sums, dict(self.shapes), payload, index) if self.writes else None

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.tuning.weights(self.gather):
            yield name, tensor.to(self.dtype)


def changed(old: Tensor, new: Tensor) -> Tensor:
    """Positions ``[k]`` in the flattened tensors at which their bits differ, ascending int64.

    −0.0 differs from 0.0, and a NaN equals itself.
    """
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[old.element_size()]
    return (old.reshape(-1).view(integer) != new.reshape(-1).view(integer)).nonzero().flatten()


def _index_dtype(size: int) -> torch.dtype:
    return torch.int32 if size < 2**31 else torch.int64


def _finish(
    version: int,
    kind: UpdateKind,
    checksums: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    payload: Mapping[str, TensorPayload],
    index: Mapping[str, TensorPayload] | None = None,
) -> WeightUpdate:
    nbytes = sum(value.nbytes for part in (payload, index or {}) for value in part.values())
    carries_positions = kind == "values" and bool(index)
    manifest = WeightManifest(version - 1, version, kind, checksums, nbytes, shapes, carries_positions)
    return WeightUpdate(manifest, payload, index or {})
