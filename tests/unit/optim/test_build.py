from __future__ import annotations

import pytest
import torch
from torch import nn

from rlpost.config.tuning import OptimizerSection
from rlpost.errors import MissingPackageError
from rlpost.learner.torch_engine import set_rate
from rlpost.optim.build import build
from rlpost.optim.lowrank import LowRankAdamW


def named() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    sizes = {"model.embed_tokens.weight": (20, 8), "layers.0.q_proj.weight": (8, 8), "layers.0.norm.weight": (8,)}
    return [(name, nn.Parameter(torch.randn(size))) for name, size in sizes.items()]


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    parameters = named()
    optimizer = build(parameters, OptimizerSection(name="muon", lr=0.1, args={"momentum": 0.8}))
    assert [[p.shape for p in group["params"]] for group in optimizer.param_groups] == [[(8, 8)], [(20, 8), (8,)]]
    set_rate(optimizer, 0.05)
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.05, 0.05]
    for _, p in parameters:
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for _, p in parameters]
    optimizer.step()
    assert all(not torch.equal(p, q) for (_, p), q in zip(parameters, before, strict=True))
    other = build(named(), OptimizerSection(name="muon", lr=0.1))
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.05, 0.05]
    assert other.param_groups[0] is other.parts[0].param_groups[0]


def test_low_rank_projects_the_matrices_only() -> None:
    optimizer = build(named(), OptimizerSection(name="lowrank", lowrank={"preset": "fira", "rank": 3, "gap": 7}))
    assert isinstance(optimizer, LowRankAdamW)
    projections = [group["projection"] for group in optimizer.param_groups]
    assert (projections[0].rank, projections[0].gap, projections[0].rest, projections[1]) == (3, 7, "scaled", None)


def test_lora_plus_has_b_learn_faster() -> None:
    one, two = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))
    both = [("q_proj.lora_A.default.weight", one), ("q_proj.lora_B.default.weight", two)]
    optimizer = build(both, OptimizerSection(lora_plus_ratio=16.0))
    set_rate(optimizer, 1e-4)
    assert [(group["params"], group["lr"]) for group in optimizer.param_groups] == [([one], 1e-4), ([two], 1.6e-3)]


def test_an_optimizer_of_a_package_that_is_not_there_is_named() -> None:
    try:
        import pytorch_optimizer  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackageError, match="pip install pytorch_optimizer"):
            build(named(), OptimizerSection(name="pytorch_optimizer:lion"))
