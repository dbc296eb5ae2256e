"""Trained parameters with other values for a moment, to see where they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.tuning.method import TuningMethod

ENTRIES = 2**16
"""Most entries of a parameter that are moved."""


@dataclass(slots=True)
class Moved:
    """One parameter that is moved.

    Attributes:
        name: its name.
        parameter: the parameter.
        places: positions in the flattened parameter ``[k]``.
        before: values there at first ``[k]``.
        step: what is added to them ``[k]``.
        factor: number of steps that are added.
    """

    name: str
    parameter: nn.Parameter
    places: Tensor
    before: Tensor
    step: Tensor
    factor: float = 1.0

    def put(self, factor: float) -> None:
        """Set the entries to their first values plus ``factor`` steps; 0 restores every bit."""
        held = self.parameter.data
        flat = held.flatten()  # a view if the parameter is contiguous
        flat[self.places] = self.before + factor * self.step if factor else self.before
        if flat.data_ptr() != held.data_ptr():
            held.copy_(flat.view(held.shape))


class MovedParameters:
    """A block in which every trained parameter has other values than before; afterwards all bits are as they were.

    Args:
        tuning: the tuning method; its optimizer's entries are moved, and written into the model.
        model: the model with the method applied.
    """

    def __init__(self, tuning: TuningMethod, model: nn.Module):
        source = torch.Generator().manual_seed(0)
        own = dict(model.named_parameters())
        self.tuning = tuning
        self.all = [self._of(name, p, own.get(name) is p, source) for name, p in tuning.trained()]

    def _of(self, name: str, parameter: nn.Parameter, of_model: bool, source: torch.Generator) -> Moved:
        # all over the tensor: what is published of it may be stale in a part
        stride = -(-parameter.numel() // ENTRIES) or 1
        places = torch.arange(parameter.numel() - 1, -1, -stride, device=parameter.device)
        if of_model:  # a mask may let only some entries be trained
            whole = torch.ones_like(parameter)
            seen: Any = self.tuning.mask_gradient(name, whole)
            if seen is not whole:
                trained = seen.flatten().nonzero().flatten()
                places = trained[:: -(-len(trained) // ENTRIES) or 1]
        before = parameter.data.flatten()[places].clone()
        size = float(before.float().square().mean().sqrt()) if len(places) else 0.0
        noise = torch.randn(len(places), generator=source).to(before)
        return Moved(name, parameter, places, before, before / 4 + (size or 0.05) * noise)

    def __enter__(self) -> MovedParameters:
        for one in self.all:
            one.put(one.factor)
        self.tuning.write_back()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.all:
            one.put(0.0)
        self.tuning.write_back()

    def of(self, module: nn.Module) -> list[Moved]:
        """The moved parameters of a module."""
        inside = {id(p) for p in module.parameters()}
        return [one for one in self.all if id(one.parameter) in inside]

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The moved parameters by name."""
        return ((one.name, one.parameter) for one in self.all)
