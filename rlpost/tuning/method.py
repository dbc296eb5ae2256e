"""What a tuning method answers: what the optimizer owns, and what the policy is in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from rlpost.errors import SelfCheckError

GatherParameters = Callable[[Sequence[nn.Parameter]], AbstractContextManager[object]]
"""Makes parameters whole on every rank inside its block, where an engine shards them."""


def unsharded(_: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """`GatherParameters` of an engine that shards nothing."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Adapter:
    """A plain LoRA adapter relative to the base that engines hold.

    Attributes:
        matrices: by Hugging Face name of the layer: A ``[r, in]`` and B ``[out, r]``, scaled: ΔW = B A.
        rank: the largest r.

    >>> Adapter({}, 8).rank
    8
    """

    matrices: Mapping[str, tuple[Tensor, Tensor]]
    rank: int


class TuningMethod(Protocol):
    """A model of which some parameters change."""

    can_disable_adapter: bool
    """Whether `disable_adapter` can show the starting policy without a second copy of the model."""

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimizer owns, by name."""
        ...

    def write_back(self) -> None:
        """After an update: bring what the optimizer owns into the model."""
        ...

    def mask_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """The part of a full gradient of a trained name that the optimizer sees."""
        ...

    def weights(self, gather: GatherParameters) -> Iterator[tuple[str, Tensor]]:
        """The policy in full, by Hugging Face name, one tensor at a time. The model itself is not touched."""
        ...

    def disable_adapter(self) -> AbstractContextManager[object]:
        """A block in which the model is the starting policy (PEFT's ``disable_adapter``). Nothing is trained inside."""
        ...

    def warmup_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters whose gradients on the first batches decide what is trained; empty where that is known."""
        ...

    def finish_warmup(self, scores: Mapping[str, Tensor]) -> None:
        """Take those gradients, summed and named as `warmup_parameters` are, and decide what is trained."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the model's and the optimizer's state; tensors and plain data."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back, before the optimizer's state is loaded.

        Raises:
            ValueError: if it is of another mask; KeyError, RuntimeError: of another method or shape.
        """
        ...

    def check(self) -> None:
        """Compare what must not change with what it was, of parameters that are whole on this rank.

        Raises:
            SelfCheckError: if a bit of it changed.
        """
        ...

    def save_delta(self, folder: Path, base: str) -> None:
        """Write what was learned in the method's own small form (an adapter, a mask with values), where it has one."""
        ...


class Full:
    """Every parameter changes.

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
    """Raise SelfCheckError for the first name whose checksum is not what it was."""
    moved = [name for name, value in before.items() if now[name] != value]
    if moved:
        raise SelfCheckError(
            f"tuning: {moved[0]!r} changed where nothing may ({len(moved)} of {len(before)} tensors); the optimizer "
            "owns more than the tuning method trains, do not use this policy"
        )
