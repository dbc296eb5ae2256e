"""The learner's engine in plain torch: unsharded, and the oracle that the DeepSpeed engine is tested against."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.tuning import OptimizerSection
from rlpost.errors import CheckpointError, first_line
from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.ranks import join, leave, shares, sums
from rlpost.optim.build import build_optimizer
from rlpost.optim.masters import Masters
from rlpost.optim.movement import Owned, owned_by
from rlpost.protocols import Applied
from rlpost.tuning.method import TuningMethod

_FILE = "learner.pt"
_SETTINGS = ("betas", "eps", "weight_decay", "lr_ratio")
"""Settings of parameter groups that a configuration gives; the learning rate is set at every update."""


class TorchEngine:
    """`rlpost.protocols.TrainEngine` with float32 masters; gradients are summed over ranks by all-reduce.

    With more than one rank the process group's environment must be set, as for `torch.distributed`.

    Args:
        module: the policy.
        tuning: the tuning method, which names the trained parameters.
        optimizer: optimizer and gradient clipping.
        device: this rank's device.
        world: number of ranks.
    """

    def __init__(
        self,
        module: LogprobModel,
        tuning: TuningMethod,
        optimizer: OptimizerSection,
        device: torch.device,
        world: int = 1,
    ):
        self.world, self.device, self.settings = world, device, optimizer
        self.rank = join(device) if world > 1 else 0
        self.module, self.tuning, self.replicated = module, tuning, True
        self._optimizer: torch.optim.Optimizer | None = None
        self._masters: Masters | None = None

    @property
    def begun(self) -> bool:
        """Whether it is known what is trained: some methods choose it only after a warm-up, or change it then."""
        return bool(self.tuning.trained()) and not self.tuning.warmup_parameters()

    @property
    def masters(self) -> Masters:
        """What the optimizer owns, made on first use."""
        if self._masters is None:
            assert self.begun, "masters of parameters that the warm-up is to change"
            self._masters = Masters(self.tuning.trained())
        return self._masters

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, built on first use."""
        if self._optimizer is None:
            self._optimizer = build_optimizer(self.masters.owned, self.settings)
        return self._optimizer

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        """See `TrainEngine`."""
        return self.module(*inputs, **options)

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `TrainEngine`."""
        owned = self.masters.owned  # made before the gradients that they collect
        loss.backward()
        if last and self.world > 1:
            # all ranks must all-reduce the same tensors, and a rank without samples has no gradients
            for _, parameter in owned:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self.add_over_ranks(parameter.grad)

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """See `TrainEngine`."""
        for name, parameter in self.masters.owned:
            if parameter.grad is not None:
                yield name, parameter.grad.detach()

    def discard(self) -> None:
        """See `TrainEngine`."""
        for _, parameter in self.masters.owned:
            parameter.grad = None

    def apply(self, lr: float) -> Applied:
        """See `TrainEngine`."""
        owned = [parameter for _, parameter in self.masters.owned]
        norm = float(torch.nn.utils.clip_grad_norm_(owned, self.settings.grad_clip or math.inf))
        skipped = not math.isfinite(norm)
        if not skipped:
            set_rate(self.optimizer, lr)
            self.optimizer.step()
            self.masters.write_back()
            self.tuning.write_back()
        self.discard()
        return Applied(norm, skipped)

    def owned(self) -> list[Owned]:
        """See `TrainEngine`."""
        return owned_by(self.optimizer, collects=True)

    def master(self, name: str) -> Tensor:
        """See `TrainEngine`."""
        return dict(self.masters.owned)[name].detach()

    def gathered(self, parameters: Sequence[torch.nn.Parameter]) -> AbstractContextManager[object]:
        """See `TrainEngine`."""
        return nullcontext()

    def add_over_ranks(self, tensor: Tensor) -> None:
        """See `TrainEngine`."""
        if self.world > 1:
            torch.distributed.all_reduce(tensor)

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """See `TrainEngine`."""
        return sums(values, self.world, self.device)

    def share_over_ranks(self, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """See `TrainEngine`."""
        return shares(found, self.world)

    def save(self, folder: str, state: dict[str, Any]) -> None:
        """See `TrainEngine`."""
        if self.rank == 0:  # the others hold the same
            optimizer = self.optimizer.state_dict() if self.begun else None
            everything = {"model": self.module.state_dict(), "optimizer": optimizer, "state": state}
            if self.begun:
                everything["masters"] = self.masters.state()
            torch.save(everything, Path(folder) / _FILE)

    def load(self, folder: str) -> dict[str, Any]:
        """See `TrainEngine`."""
        file = Path(folder) / _FILE
        if not file.is_file():
            raise CheckpointError(f"{folder}: no {_FILE}; it was written by another learner engine or is incomplete")
        try:
            everything = torch.load(file, map_location=self.device, weights_only=True)
            self.module.load_state_dict(everything["model"])
            if everything["optimizer"] is not None and self.begun:
                self.masters.reset(everything.get("masters", {}))  # version 0.1 had none for adapters
                with settings_kept(self.optimizer):
                    self.optimizer.load_state_dict(everything["optimizer"])
            return everything["state"]
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{file}: damaged ({first_line(error)}); remove it and resume from an earlier checkpoint"
            ) from None

    def close(self) -> None:
        """See `TrainEngine`."""
        if self.world > 1:
            leave()


@contextmanager
def settings_kept(optimizer: Any) -> Iterator[None]:
    """Keep the configured settings of an optimizer while a checkpoint is loaded, which brings those it was made with.

    What an optimizer stores about its progress next to its settings is the checkpoint's.
    """
    before = [{name: group[name] for name in _SETTINGS if name in group} for group in optimizer.param_groups]
    yield
    for group, settings in zip(optimizer.param_groups, before, strict=True):
        group.update(settings)


def set_rate(optimizer: Any, lr: float) -> None:
    """Set the learning rate of every parameter group, scaled by the group's ``lr_ratio`` (LoRA+)."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_ratio", 1.0)
