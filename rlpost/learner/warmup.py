"""Gradients of a tuning method's first batches, before it is known what is trained.

They go past the engine: `torch.autograd.grad` leaves no gradients behind, and sees weights that no optimizer owns.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlpost.config.tuning import TuningSection
from rlpost.errors import CheckpointError
from rlpost.learner.micro_loss import micro_loss
from rlpost.learner.packing import count, items, plan_pass
from rlpost.types import TrainBatch

if TYPE_CHECKING:
    from rlpost.learner.policy import PolicyLearner


class Warmup:
    """Sums over batches: of gradients, or of their squares.

    Args:
        tuning: settings.
    """

    def __init__(self, tuning: TuningSection):
        self.squares = tuning.method == "subnetwork" and tuning.subnetwork.mask == "fisher"
        self.signed = tuning.method == "lora_xs"
        self.wanted, self.batches = tuning.warmup_steps, 0
        self.sums: dict[str, Tensor] = {}

    def add(self, found: Mapping[str, Tensor]) -> None:
        """A batch's gradients."""
        self.batches += 1
        for name, gradient in found.items():
            part = gradient**2 if self.squares else gradient
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    @property
    def done(self) -> bool:
        """Whether that was the last batch."""
        return self.batches >= self.wanted

    def scores(self) -> dict[str, Tensor]:
        """Σ g for LoRA-SB, |Σ g| or Σ g² for masks."""
        return {name: total if self.signed else total.abs() for name, total in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"batches": self.batches, "sums": self.sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.batches, self.sums = state["batches"], dict(state["sums"])


def gradients(learner: PolicyLearner, batch: TrainBatch) -> dict[str, Tensor]:
    """Of the loss of a whole batch with respect to what the tuning method asks for, float32, the same on every rank.

    Args:
        learner: whose policy and loss.
        batch: with the reference's log-probabilities, where the loss has a KL term.
    """
    engine, wanted = learner.engine, learner.engine.tuning.wanted()
    rows = range(len(batch.samples))
    counts = count(batch.samples, rows, learner.config.rollout.max_tokens)
    passes = plan_pass(rows, items(batch.samples), engine.world, learner.layout)
    total = {name: torch.zeros(p.shape, dtype=torch.float32, device=p.device) for name, p in wanted.items()}
    with _differentiable(wanted.values()):
        for micro, logprobs in learner.run(engine.module, batch.samples, passes):
            samples = [batch.samples[row] for row in micro.rows]
            loss, _ = micro_loss(micro.table(logprobs), micro, samples, learner.settings, counts)
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
    """What a checkpoint holds of the tuning method; a folder without it is left to the engine to judge.

    Raises:
        CheckpointError: if it is damaged.
    """
    if not file.is_file():
        return {"method": {}, "warmup": None}
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: cannot be read ({reason}); resume from an earlier checkpoint") from None
