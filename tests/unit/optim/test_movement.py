"""What an update moved, by hand. Not covered: flat partitions of DeepSpeed (tests/integration)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rlpost.config.tuning import LowRankSettings, OptimizerSection
from rlpost.learner.torch_engine import set_rate
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


def adamw_said(change: Any = None, asked: float = 1e-3, steps: int = 3, **settings: Any) -> str | None:
    """What is said of the last of a few updates; ``change`` is done to the gradient after it has been looked at."""
    torch.manual_seed(0)
    held = nn.Parameter(torch.randn(6))
    optimizer = build_optimizer([("w", held)], OptimizerSection(**{"lr": 1e-3, **settings}))
    for _ in range(steps):
        held.grad = torch.randn(6)
        sample = MovementSample(owned_by(optimizer, collects=True))
        if change is not None:
            change(held)
        optimizer.step()
    return sample.adamw_error(owned_by(optimizer, collects=True), asked)


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"betas": (0.8, 0.9)}, {"eps": 1e-2}])
@pytest.mark.parametrize("steps", [1, 3])
def test_adamw_moves_as_its_formula_says(settings: dict[str, Any], steps: int) -> None:
    assert adamw_said(steps=steps, **settings) is None
    # clipping changes the gradient's length alone
    assert adamw_said(lambda held: held.grad.mul_(0.01), steps=1, **settings) is None


def test_an_update_with_another_rate_or_direction_is_told() -> None:
    assert "AdamW moves it by" in str(adamw_said(asked=2e-3))
    assert "another direction than the gradient's (cosine -1)" in str(adamw_said(lambda held: held.grad.neg_()))
    assert "the optimizer left it out" in str(adamw_said(lambda held: setattr(held, "grad", None), steps=1))


def test_lora_plus_has_a_rate_for_each_group() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    named = [("x.lora_A.default.weight", a), ("x.lora_B.default.weight", b)]
    optimizer = build_optimizer(named, OptimizerSection(lr=1e-3, lora_plus_ratio=16.0))
    a.grad, b.grad = torch.ones(3), -torch.ones(3)
    sample = MovementSample(owned_by(optimizer, collects=True))
    set_rate(optimizer, 5e-4)
    optimizer.step()
    assert sample.adamw_error(owned_by(optimizer, collects=True), 5e-4) is None
    assert sample.adamw_error(owned_by(optimizer, collects=True), 1e-3) is not None
