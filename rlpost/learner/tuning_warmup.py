"""Gradients of a tuning method's first batches, which decide what is trained.

They bypass the engine: `torch.autograd.grad` stores no gradients, and reaches weights that no optimizer owns.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.config.tuning import TuningSection
from rlpost.errors import CheckpointError, first_line
from rlpost.learner.micro_loss import micro_loss
from rlpost.learner.packing import plan_pass
from rlpost.learner.passes import ModelPasses
from rlpost.learner.samples import Samples


class Warmup:
    """Sums over batches of gradients, or of their squares.

    Args:
        tuning: method, mask criterion, and number of warm-up batches.
    """

    def __init__(self, tuning: TuningSection):
        self.squares = tuning.method == "subnetwork" and tuning.subnetwork.mask == "fisher"
        self.signed = tuning.method == "lora_xs"
        self.wanted, self.batches = tuning.warmup_steps, 0
        self.sums: dict[str, Tensor] = {}

    def add(self, found: Mapping[str, Tensor]) -> None:
        """Add a batch's gradients."""
        self.batches += 1
        for name, gradient in found.items():
            part = gradient**2 if self.squares else gradient
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    @property
    def done(self) -> bool:
        """Whether all warm-up batches were added."""
        return self.batches >= self.wanted

    def scores(self) -> dict[str, Tensor]:
        """Σ g for LoRA-SB, |Σ g| or Σ g² for masks."""
        return {name: total if self.signed else total.abs() for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"batches": self.batches, "sums": self.sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.batches, self.sums = state["batches"], dict(state["sums"])


def gradients(passes: ModelPasses, samples: Samples, version: int) -> dict[str, Tensor]:
    """Gradients of a whole batch's loss with respect to the tuning method's warm-up parameters.

    Args:
        passes: the model and its loss.
        samples: the whole batch; with a KL term its samples need the reference's log-probabilities.
        version: policy version of the learner.

    Returns:
        Float32 tensors by name, the same on every rank.
    """
    engine, wanted = passes.engine, passes.engine.tuning.warmup_parameters()
    plans = plan_pass(range(len(samples)), samples.sizes, engine.world, passes.layout)
    counts = passes.denominators(samples, plans)
    total = {name: torch.zeros(p.shape, dtype=torch.float32, device=p.device) for name, p in wanted.items()}
    with _differentiable(wanted.values()):
        for micro, logprobs in passes.run(engine.module, samples, plans):
            chosen = [samples[index] for index in micro.indices]
            loss, _ = micro_loss(micro.table(logprobs), micro, chosen, passes.loss, counts, version)
            found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
            for name, gradient in zip(wanted, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
    for tensor in total.values():
        engine.add_over_ranks(tensor)
    return total


@contextmanager
def _differentiable(parameters: Any) -> Iterator[None]:
    chosen: list[nn.Parameter] = list(parameters)
    before = [parameter.requires_grad for parameter in chosen]
    for parameter in chosen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, was in zip(chosen, before, strict=True):
            parameter.requires_grad_(was)


def read_tuning(file: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint's tuning state; empty if the file is missing, since the engine checks the folder.

    Raises:
        CheckpointError: if it is damaged.
    """
    if not file.is_file():
        return {"method": {}, "warmup": None}
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{file}: cannot be read ({first_line(error)}); resume from an earlier checkpoint"
        ) from None
