r"""Train some entries of the weights, while all others keep every bit of the starting model.

"Reinforcement learning finetunes small subnetworks" (Mukherjee et al. 2025) found that such a subnetwork suffices; its
code only measures. Two ways to train one:

`Compact` gives the optimizer a float32 vector of each tensor's kept entries. Gradients are computed in full; tensor by
tensor, the kept entries are added to the vector's gradient and the rest is freed. With n parameters of b bytes and
density ρ that takes b n bytes for the weights and 20 ρ n for positions, masters, gradients and two moments.

`Hooked` multiplies gradients with the mask before they are accumulated, clipped or sharded, so that an optimizer
without weight decay leaves the other entries alone: its moments there stay zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlpost.errors import DataError
from rlpost.sync.codec import checksums
from rlpost.tuning import masks
from rlpost.tuning.masks import Mask, TensorMask
from rlpost.tuning.method import Full, GatherParameters, check_untouched


@dataclass(slots=True)
class Kept:
    """Entries of one tensor that the optimizer owns.

    Attributes:
        parameter: the model's parameter.
        index: positions in the flattened tensor, int32 or int64; None means all.
        values: float32 masters, one for each position.
        base: the starting values in the model's dtype; empty if they are not stored.
    """

    parameter: nn.Parameter
    index: Tensor | None
    values: nn.Parameter
    base: Tensor

    @classmethod
    def of(cls, parameter: nn.Parameter, index: Tensor | None, keep_base: bool) -> Kept:
        """Make it from a parameter that holds the starting values."""
        held = _take(parameter.detach(), index)
        base = held.clone() if keep_base else held.new_empty(0)
        return cls(parameter, index, nn.Parameter(held.to(torch.float32, copy=True)), base)

    @torch.no_grad()
    def collect(self, parameter: nn.Parameter) -> None:
        """Add the kept entries of a gradient to the masters' gradient and free the full one."""
        assert parameter.grad is not None
        gradient = _take(parameter.grad, self.index).to(torch.float32)
        self.values.grad = gradient if self.values.grad is None else self.values.grad.add_(gradient)
        parameter.grad = None

    @torch.no_grad()
    def put(self, values: Tensor) -> None:
        """Write values into the tensor."""
        held = self.parameter.data
        if self.index is None:
            held.copy_(values)
        else:
            held.view(-1).index_copy_(0, self.index.long(), values.to(held.dtype))


def _take(tensor: Tensor, index: Tensor | None) -> Tensor:
    """The entries ``[k]``; for all of them the tensor in its own shape, which optimizers of matrices need."""
    return tensor if index is None else tensor.reshape(-1).index_select(0, index)


class Subnetwork(Full):
    """Common part of `Compact` and `Hooked`: the mask, and checksums of everything outside it.

    Args:
        model: a Hugging Face causal language model.
        mask: the trained entries; None until they are chosen from gradients.
        choose: makes the mask from gradients; None if they are not needed.
    """

    def __init__(self, model: nn.Module, mask: Mask | None, choose: Chooser | None):
        super().__init__(model)
        self.mask, self.choose = mask, choose
        self.outside: dict[str, str] = {}

    def warmup_parameters(self) -> dict[str, nn.Parameter]:
        """See `TuningMethod`."""
        return {} if self.choose is None else self.choose.targets(self.model)

    def check(self) -> None:
        """See `TuningMethod`."""
        if self.outside:
            check_untouched(self.outside, checksums(self._outside()))

    def values(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Positions (int32 or int64) of each tensor's trained entries, and the model's values there."""
        raise NotImplementedError

    def save_delta(self, folder: Path, base: str) -> None:
        """See `TuningMethod`: ``subnetwork/mask.safetensors`` and the values in the order of its entries."""
        save_subnetwork(folder, self.mask, {name: found for name, (_, found) in self.values().items()}, base)

    def _seal(self) -> None:
        """Record checksums of everything outside the mask."""
        self.outside = checksums(self._outside()) if self.mask is not None else {}

    def _outside(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors, with their trained entries set to zero."""
        tensors = (self.mask or Mask({})).tensors
        for name, parameter in self.model.named_parameters():
            held = parameter.detach()
            if name in tensors:
                held = held.masked_fill(tensors[name].dense().to(held.device), 0.0)
            yield name, held


class Compact(Subnetwork):
    """Float32 masters of the kept entries; the model stays in its own dtype.

    Args:
        model: a Hugging Face causal language model.
        mask: the trained entries; None without ``choose`` means all, which is plain training with float32 masters.
        choose: makes the mask from gradients if there is none yet; see `Chooser`.
        keep_base: store the kept entries' starting values, for `disable_adapter`.
    """

    def __init__(
        self, model: nn.Module, mask: Mask | None = None, choose: Chooser | None = None, keep_base: bool = False
    ):
        super().__init__(model, mask, choose)
        self.can_disable_adapter = keep_base
        self.kept: dict[str, Kept] = {}
        if choose is None:
            self._divide()

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """See `TuningMethod`: the masters, by the name of their tensor."""
        return [(name, kept.values) for name, kept in self.kept.items()]

    def write_back(self) -> None:
        """See `TuningMethod`."""
        for kept in self.kept.values():
            kept.put(kept.values.detach())

    def stored(self, name: str, gather: GatherParameters) -> Tensor:
        """See `TuningMethod`."""
        return _take(self.kept[name].parameter.detach(), self.kept[name].index)

    def mask_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """See `TuningMethod`."""
        return _take(gradient, self.kept[name].index)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """See `TuningMethod`: the kept entries have their starting values inside the block."""
        for kept in self.kept.values():
            kept.put(kept.base)
        try:
            yield
        finally:
            self.write_back()

    def finish_warmup(self, scores: Mapping[str, Tensor]) -> None:
        """See `TuningMethod`."""
        assert self.choose is not None
        self.mask, self.choose = self.choose.mask(scores), None
        self._divide()

    def values(self) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Subnetwork`: from the masters, rounded as in `write_back`; reading them from the model takes longer."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, kept in self.kept.items():
            if kept.index is not None:
                found[name] = kept.index, kept.values.detach().to(kept.parameter.dtype)
        return found

    def state(self) -> dict[str, Any]:
        """See `TuningMethod`."""
        values = {name: kept.values.detach() for name, kept in self.kept.items()}
        base = {name: kept.base for name, kept in self.kept.items()}
        return {"values": values, "base": base, "mask": _plain(self.mask)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TuningMethod`."""
        mask = _unplain(state["mask"])
        if self.choose is not None and mask is not None:
            self.mask, self.choose = mask, None
            self._divide()
        elif not _same(mask, self.mask):
            raise ValueError("its mask is another one than the configuration makes")
        for name, kept in self.kept.items():
            kept.values.data.copy_(state["values"][name])
            kept.base.copy_(state["base"][name])
        self.write_back()

    def _divide(self) -> None:
        """Give the optimizer its entries, and freeze tensors without any."""
        tensors = None if self.mask is None else _fitting(self.mask, self.model)
        for name, parameter in self.model.named_parameters():
            bits = None if tensors is None else tensors.get(name)
            if tensors is not None and (bits is None or not bits.count):
                parameter.requires_grad_(False)
                continue
            index = None if bits is None else bits.index().to(parameter.device)
            kept = self.kept[name] = Kept.of(parameter, index, self.can_disable_adapter)
            parameter.register_post_accumulate_grad_hook(kept.collect)
        self._seal()


class Hooked(Subnetwork):
    """Masked gradients of whole tensors, for engines that shard; the optimizer must not decay weights.

    It must be created before the engine, so that the engine's own hooks see only masked gradients.

    Args:
        model: a Hugging Face causal language model.
        mask: the trained entries; None until they are chosen from gradients.
        choose: makes the mask from gradients if there is none yet.
    """

    def __init__(self, model: nn.Module, mask: Mask | None, choose: Chooser | None = None):
        super().__init__(model, mask, choose)
        self.dense: dict[str, Tensor] = {}
        self.index: dict[str, Tensor] = {}
        named = dict(model.named_parameters())
        chosen = choose.targets(model) if choose is not None else _fitting(mask or Mask({}), model)
        for name, parameter in named.items():
            if name not in chosen:
                parameter.requires_grad_(False)
                continue
            parameter.register_hook(self._masking(name))
        if mask is not None:
            self._adopt(mask)

    def mask_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """See `TuningMethod`."""
        if name not in self.dense:
            return gradient
        self.dense[name] = self.dense[name].to(gradient.device)
        return gradient * self.dense[name]

    def finish_warmup(self, scores: Mapping[str, Tensor]) -> None:
        """See `TuningMethod`."""
        assert self.choose is not None
        self._adopt(self.choose.mask(scores))
        self.choose = None

    def values(self) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Subnetwork`; parameters must be whole on this rank."""
        named = dict(self.model.named_parameters())
        return {n: (i, _take(named[n].detach(), i.to(named[n].device))) for n, i in self.index.items()}

    def state(self) -> dict[str, Any]:
        """See `TuningMethod`."""
        return {"mask": _plain(self.mask)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TuningMethod`."""
        mask = _unplain(state["mask"])
        if self.choose is not None and mask is not None:
            self._adopt(mask)
            self.choose = None
        elif not _same(mask, self.mask):
            raise ValueError("its mask is another one than the configuration makes")

    def _adopt(self, mask: Mask) -> None:
        self.mask = mask
        if all(tuple(p.shape) == mask.tensors[n].shape for n, p in self.model.named_parameters() if n in mask.tensors):
            self._seal()  # at ZeRO stage 3 the tensors are already sharded when a checkpoint brings a mask
        self.dense = {name: bits.dense() for name, bits in mask.tensors.items()}
        self.index = {name: bits.index() for name, bits in mask.tensors.items() if bits.count}

    def _masking(self, name: str) -> Any:
        def hook(gradient: Tensor) -> Tensor:
            return self.mask_gradient(name, gradient)

        return hook


@dataclass(frozen=True, slots=True)
class Chooser:
    """How a mask is made once gradients are known.

    Attributes:
        density: share of the entries to keep, in (0, 1].
        scope: ``matrix`` applies the density to each tensor, ``global`` to all entries together.
        targets: function from a model to its parameters that may have entries, by name.
        base: `rlpost.tuning.masks.weights_hash` of the starting model.
        how: how the mask is made, as plain data for its file.
    """

    density: float
    scope: masks.Scope
    targets: Any
    base: str
    how: Mapping[str, Any]

    def mask(self, scores: Mapping[str, Tensor]) -> Mask:
        """The entries with the highest scores."""
        return Mask(masks.top(scores, self.density, self.scope), self.base, dict(self.how))


def save_subnetwork(folder: Path, mask: Mask | None, values: Mapping[str, Tensor], base: str) -> None:
    """Write ``subnetwork/mask.safetensors`` and ``subnetwork/values.safetensors`` (kept entries in their order)."""
    if mask is None:
        return
    target = folder / "subnetwork"
    target.mkdir()
    masks.save(mask, target / "mask.safetensors")
    save_file({n: v.cpu().contiguous() for n, v in values.items()}, target / "values.safetensors", {"base": base})


def _fitting(mask: Mask, model: nn.Module) -> Mapping[str, TensorMask]:
    """The mask's tensors; raises DataError for one that the model lacks or has in another shape."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name, bits in mask.tensors.items():
        if shapes.get(name) != bits.shape:
            raise DataError(
                f"tuning.subnetwork: the mask has {name!r} {bits.shape}, the model "
                f"{shapes.get(name, 'no such tensor')}; use a mask of this model"
            )
    return mask.tensors


def _same(one: Mask | None, other: Mask | None) -> bool:
    """Whether two masks keep the same entries."""
    if one is None or other is None:
        return one is other
    return one.tensors.keys() == other.tensors.keys() and all(
        bits.shape == other.tensors[name].shape and np.array_equal(bits.packed, other.tensors[name].packed)
        for name, bits in one.tensors.items()
    )


def _plain(mask: Mask | None) -> dict[str, Any] | None:
    if mask is None:
        return None
    bits = {name: [list(b.shape), torch.from_numpy(b.packed)] for name, b in mask.tensors.items()}
    return {"tensors": bits, "base": mask.base, "made": dict(mask.made)}


def _unplain(stored: Mapping[str, Any] | None) -> Mask | None:
    if stored is None:
        return None
    tensors = {
        name: TensorMask(tuple(shape), packed.cpu().numpy()) for name, (shape, packed) in stored["tensors"].items()
    }
    return Mask(tensors, stored["base"], stored["made"])
