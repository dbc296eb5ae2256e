"""The learner's engine in plain torch: one rank, the oracle that the DeepSpeed engine is tested against."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.schema import OptimizerSection
from rlpost.errors import CheckpointError
from rlpost.learner.engine import Applied
from rlpost.learner.models import ScoringModel

_FILE = "learner.pt"


class TorchEngine:
    """`rlpost.learner.engine.TrainEngine` on one device, in the model's own dtype.

    Args:
        module: the policy.
        optimizer: settings.
        device: where it runs.
    """

    def __init__(self, module: ScoringModel, optimizer: OptimizerSection, device: torch.device):
        self.rank, self.world, self.device = 0, 1, device
        self.module, self.whole = module.to(device), True
        self.clip = optimizer.grad_clip
        self.optimizer = adamw(module, optimizer)

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """See `TrainEngine`."""
        return self.module(*inputs, **options)

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `TrainEngine`."""
        loss.backward()

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See `TrainEngine`."""
        for name, parameter in self.module.model.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad.detach()

    def discard(self) -> None:
        """See `TrainEngine`."""
        self.optimizer.zero_grad(set_to_none=True)

    def apply(self, lr: float) -> Applied:
        """See `TrainEngine`."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip or math.inf))
        skipped = not math.isfinite(norm)
        if not skipped:
            set_rate(self.optimizer, lr)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Applied(norm, skipped)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """See `TrainEngine`."""
        for name, parameter in self.module.model.named_parameters():
            yield name, parameter.detach()

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """See `TrainEngine`."""
        return values

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """See `TrainEngine`."""
        return found

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """See `TrainEngine`."""
        everything = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "state": state}
        torch.save(everything, Path(folder) / _FILE)

    def load(self, folder: str) -> dict[str, Any]:
        """See `TrainEngine`."""
        file = Path(folder) / _FILE
        if not file.is_file():
            raise CheckpointError(f"{folder}: no {_FILE}; it was written by another learner engine or is incomplete")
        try:
            everything = torch.load(file, map_location=self.device, weights_only=True)
            self.module.load_state_dict(everything["model"])
            self.optimizer.load_state_dict(everything["optimizer"])
            return everything["state"]
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{file}: damaged ({reason}); remove it and resume from an earlier checkpoint"
            ) from None

    def close(self) -> None:
        """See `TrainEngine`."""


def adamw(module: torch.nn.Module, settings: OptimizerSection) -> torch.optim.AdamW:
    """torch's AdamW over the trainable parameters (Loshchilov & Hutter 2019).

    DeepSpeed is given this object too: an optimizer named in its JSON is compiled with g++ at start, which takes
    minutes on CPU.
    """
    return torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def set_rate(optimizer: Any, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
