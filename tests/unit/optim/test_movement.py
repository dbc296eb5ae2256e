"""What an update moved, by hand. Not covered: flat partitions of DeepSpeed (tests/integration)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rlpost.config.tuning import LowRankSettings, OptimizerSection
from rlpost.optim.build import build_optimizer
from rlpost.optim.movement import SAMPLE, MovementSample, owned_by


def looked(values: list[float], gradient: list[float], undone: bool = False, **settings: Any) -> tuple[int, int]:
    """Entries that one AdamW update had to move, and that moved."""
    held = nn.Parameter(torch.tensor(values))
    optimizer = build_optimizer([("w", held)], OptimizerSection(**{"lr": 1e-3, **settings}))
    sample = MovementSample(owned_by(optimizer))
    held.grad = torch.tensor(gradient)
    before = held.detach().clone()
    optimizer.step()
    if undone:
        held.data.copy_(before)
    return sample.moved(owned_by(optimizer))


def test_entries_with_a_gradient_move() -> None:
    assert looked([0.5, -0.5, 0.0], [1e-3, -1e-5, 1e-2]) == (3, 3)


def test_entries_without_a_gradient_need_not() -> None:
    # a masked entry, and a word that did not occur
    assert looked([0.5, -0.5, 0.0], [0.0, -1e-5, 0.0]) == (1, 1)
    assert looked([0.5, -0.5], [0.0, 0.0]) == (0, 0)


def test_an_update_that_is_undone_moves_nothing() -> None:
    assert looked([0.5, -0.5, 0.0], [1e-3, -1e-5, 1e-2], undone=True) == (3, 0)


def test_steps_that_float32_cannot_show_need_not_move_anything() -> None:
    # float32 next to 0.5 has steps of 6e-8, next to 1e-5 of 1e-12
    assert looked([0.5, 1e-5], [1.0, 1.0], lr=1e-10) == (1, 1)
    assert looked([0.5, 0.1], [1.0, 1.0], lr=1e-12) == (0, 0)
    # a gradient far below epsilon: the step is 1e-3 · 1e-14 / 1e-8
    assert looked([0.5], [1e-14]) == (0, 0)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_alone_is_no_step(decay: float) -> None:
    assert looked([0.5, 0.5], [0.0, 1e-3], weight_decay=decay) == (1, 1)


@pytest.mark.parametrize("name", ["adamw", "muon", "lowrank"])
def test_optimizers_of_matrices_move_what_they_own(name: str) -> None:
    torch.manual_seed(0)
    matrix, vector = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.ones(6))
    settings = OptimizerSection(name=name, lr=1e-3, lowrank=LowRankSettings(rank=2))
    optimizer = build_optimizer([("layer.weight", matrix), ("norm.weight", vector)], settings)
    found = []
    for undone in (False, False, True):
        sample, before = MovementSample(owned_by(optimizer)), [p.detach().clone() for p in (matrix, vector)]
        for parameter in (matrix, vector):
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        if undone:
            for parameter, value in zip((matrix, vector), before, strict=True):
                parameter.data.copy_(value)
        found.append(sample.moved(owned_by(optimizer)))
    # the first update of muon and of a projection may set up their state; Adam's entries count from the first
    assert found[0] == ((54, 54) if name == "adamw" else (6, 6))
    assert found[1] == (54, 54)
    assert found[2] == (54, 0)


def test_a_large_model_is_sampled() -> None:
    held = [nn.Parameter(torch.ones(300, 1000)) for _ in range(3)]
    optimizer = build_optimizer([(f"w{n}", p) for n, p in enumerate(held)], OptimizerSection(lr=1e-3))
    sample = MovementSample(owned_by(optimizer))
    for parameter in held:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    wanted, moved = sample.moved(owned_by(optimizer))
    # 900,000 entries at a stride of 15
    assert wanted == moved == 60_000 <= SAMPLE


def test_nothing_is_owned_before_anything_is_trained() -> None:
    assert MovementSample([]).moved([]) == (0, 0)
