"""What the learner needs from whatever runs forward, backward and the optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rlpost.data.models import ScoringModel
from rlpost.tuning.method import Tuning


@dataclass(frozen=True, slots=True)
class Applied:
    """An optimizer update: the gradient norm before clipping, and whether the update was skipped as non-finite."""

    grad_norm: float
    skipped: bool


class TrainEngine(Protocol):
    """One data-parallel rank. Every method is called by all ranks in the same order."""

    rank: int
    world: int
    device: torch.device
    module: ScoringModel
    tuning: Tuning
    optimizer: Any
    whole: bool
    """Whether every rank holds all parameters."""

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """Log-probabilities from `rlpost.data.models.ScoringModel`."""
        ...

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients; ``last`` marks the minibatch's final micro-batch. Ranks' gradients are *summed*."""
        ...

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Accumulated gradients of what the optimizer owns, by name, between the last `backward` and `apply`."""
        ...

    def discard(self) -> None:
        """Forget what was accumulated, so that training goes on as if it had never been computed."""
        ...

    def apply(self, lr: float) -> Applied:
        """One optimizer update with what was accumulated, which is then cleared."""
        ...

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """A block in which parameters are whole on every rank."""
        ...

    def add_over_ranks(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all ranks."""
        ...

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Sums of the values over all ranks; every rank passes the same keys."""
        ...

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """What all ranks found together, by sample."""
        ...

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """Write parameters, optimizer and ``state``."""
        ...

    def load(self, folder: str) -> dict[str, Any]:
        """Read them back; returns ``state``."""
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...
