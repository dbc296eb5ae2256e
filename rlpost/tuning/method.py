"""The interface of tuning methods: what the optimizer owns, and the full policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from rlpost.errors import SelfCheckError

GatherParameters = Callable[[Sequence[nn.Parameter]], AbstractContextManager[object]]
"""Gives a block in which sharded parameters are whole on every rank."""


def unsharded(_: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """`GatherParameters` of an engine that shards nothing."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Adapter:
    """A plain LoRA adapter relative to the base that engines hold.

    Attributes:
        matrices: A ``[r, in]`` and scaled B ``[out, r]`` by Hugging Face name of the layer, so that ΔW = B A.
        rank: the largest r.

    >>> Adapter({}, 8).rank
    8
    """

    matrices: Mapping[str, tuple[Tensor, Tensor]]
    rank: int


class TuningMethod(Protocol):
    """A model with trained parameters."""

    can_disable_adapter: bool
    """Whether `disable_adapter` can restore the starting policy without a second copy of the model."""

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that the optimizer owns, by name."""
        ...

    def write_back(self) -> None:
        """Write what the optimizer owns into the model, after an update."""
        ...

    def stored(self, name: str, gather: GatherParameters) -> Tensor:
        """What the model holds of a trained parameter: that of which `trained` may have a float32 master."""
        ...

    def mask_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """The part of a trained parameter's full gradient that the optimizer sees."""
        ...

    def weights(self, gather: GatherParameters) -> Iterator[tuple[str, Tensor]]:
        """The full policy by Hugging Face name, one tensor at a time. The model itself is not changed."""
        ...

    def disable_adapter(self) -> AbstractContextManager[object]:
        """A block in which the model is the starting policy (PEFT's ``disable_adapter``). Nothing is trained inside."""
        ...

    def warmup_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters whose gradients on the first batches decide what is trained; empty if that is already known."""
        ...

    def finish_warmup(self, scores: Mapping[str, Tensor]) -> None:
        """Decide what is trained from scores by the names of `warmup_parameters`.

        See `rlpost.learner.tuning_warmup`.
        """
        ...

    def state(self) -> dict[str, Any]:
        """The state a checkpoint needs besides the model's and the optimizer's: tensors and plain data."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore that state, before the optimizer's state is loaded.

        Raises:
            ValueError: if it has another mask.
            KeyError, RuntimeError: if it is from another method or has other shapes.
        """
        ...

    def check(self) -> None:
        """Verify that what must not change is unchanged, in parameters that are whole on this rank.

        Raises:
            SelfCheckError: if a bit of it changed.
        """
        ...

    def save_delta(self, folder: Path, base: str) -> None:
        """Write the method's compact form of what was learned (an adapter, a mask with values), if it has one."""
        ...


class Full:
    """Full fine-tuning: every parameter is trained.

    Args:
        model: a Hugging Face causal language model.
    """

    can_disable_adapter = False

    def __init__(self, model: nn.Module):
        self.model = model

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """See `TuningMethod`."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def write_back(self) -> None:
        """See `TuningMethod`."""

    def stored(self, name: str, gather: GatherParameters) -> Tensor:
        """See `TuningMethod`."""
        parameter = self.model.get_parameter(name)
        with gather([parameter]):
            return parameter.detach().clone()

    def mask_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """See `TuningMethod`."""
        return gradient

    def weights(self, gather: GatherParameters) -> Iterator[tuple[str, Tensor]]:
        """See `TuningMethod`."""
        for name, parameter in self.model.named_parameters():
            with gather([parameter]):
                yield name, parameter.detach()

    def disable_adapter(self) -> AbstractContextManager[object]:
        """See `TuningMethod`."""
        return nullcontext()

    def warmup_parameters(self) -> dict[str, nn.Parameter]:
        """See `TuningMethod`."""
        return {}

    def finish_warmup(self, scores: Mapping[str, Tensor]) -> None:
        """See `TuningMethod`."""

    def state(self) -> dict[str, Any]:
        """See `TuningMethod`."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TuningMethod`."""

    def check(self) -> None:
        """See `TuningMethod`."""

    def save_delta(self, folder: Path, base: str) -> None:
        """See `TuningMethod`."""


def check_untouched(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise SelfCheckError for the first name whose checksum changed."""
    moved = [name for name, value in before.items() if now[name] != value]
    if moved:
        raise SelfCheckError(
            f"tuning: {moved[0]!r} changed where nothing may ({len(moved)} of {len(before)} tensors); the optimizer "
            "owns more than the tuning method trains, do not use this policy"
        )
