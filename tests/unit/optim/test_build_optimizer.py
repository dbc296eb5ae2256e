from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rlpost.config.tuning import OptimizerSection
from rlpost.errors import ConfigError, MissingPackageError
from rlpost.learner.torch_engine import set_rate
from rlpost.optim.build import build_optimizer
from rlpost.optim.lowrank import LowRankAdamW


def named() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    sizes = {"model.embed_tokens.weight": (20, 8), "layers.0.q_proj.weight": (8, 8), "layers.0.norm.weight": (8,)}
    return [(name, nn.Parameter(torch.randn(size))) for name, size in sizes.items()]


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    parameters = named()
    optimizer = build_optimizer(parameters, OptimizerSection(name="muon", lr=0.1, args={"momentum": 0.8}))
    assert [[p.shape for p in group["params"]] for group in optimizer.param_groups] == [[(8, 8)], [(20, 8), (8,)]]
    set_rate(optimizer, 0.05)
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.05, 0.05]
    for _, p in parameters:
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for _, p in parameters]
    optimizer.step()
    assert all(not torch.equal(p, q) for (_, p), q in zip(parameters, before, strict=True))
    other = build_optimizer(named(), OptimizerSection(name="muon", lr=0.1))
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.05, 0.05]
    assert other.param_groups[0] is other.parts[0].param_groups[0]


def test_low_rank_projects_the_matrices_only() -> None:
    optimizer = build_optimizer(
        named(), OptimizerSection(name="lowrank", lowrank={"preset": "fira", "rank": 3, "gap": 7})
    )
    assert isinstance(optimizer, LowRankAdamW)
    projections = [group["projection"] for group in optimizer.param_groups]
    assert (projections[0].rank, projections[0].gap, projections[0].rest, projections[1]) == (3, 7, "scaled", None)


def test_lora_plus_has_b_learn_faster() -> None:
    one, two = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))
    both = [("q_proj.lora_A.default.weight", one), ("q_proj.lora_B.default.weight", two)]
    optimizer = build_optimizer(both, OptimizerSection(lora_plus_ratio=16.0))
    set_rate(optimizer, 1e-4)
    assert [(group["params"], group["lr"]) for group in optimizer.param_groups] == [([one], 1e-4), ([two], 1.6e-3)]


def test_an_optimizer_of_a_package_that_is_not_there_is_named() -> None:
    try:
        import pytorch_optimizer  # noqa: F401
    except ImportError:
        with pytest.raises(MissingPackageError, match="pip install pytorch_optimizer"):
            build_optimizer(named(), OptimizerSection(name="pytorch_optimizer:lion"))


@pytest.mark.parametrize("name", ["lion", "adan", "came", "lamb", "adafactor", "prodigy"])
def test_optimizers_of_the_package_learn_and_resume(name: str) -> None:
    pytest.importorskip("pytorch_optimizer")

    def loss(parameters: list[tuple[str, nn.Parameter]]) -> torch.Tensor:
        total = torch.zeros(())
        for _, p in parameters:
            total = total + ((p - 1) ** 2).sum()
        return total

    def steps(parameters: list[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            loss(parameters).backward()
            optimizer.step()

    settings = OptimizerSection(name=f"pytorch_optimizer:{name}", lr=1e-2)
    parameters = named()
    begun, optimizer = loss(parameters).item(), build_optimizer(parameters, settings)
    steps(parameters, optimizer, 10)
    assert loss(parameters).item() < begun
    copies = [(n, nn.Parameter(p.detach().clone())) for n, p in parameters]
    again = build_optimizer(copies, settings)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(parameters, optimizer, 1)
    steps(copies, again, 1)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(parameters, copies, strict=True))


@pytest.mark.parametrize("name", ["nonesuch", "sophiah", "lomo", "alig", "muon", "spectralsphere"])
def test_an_optimizer_without_plain_steps_is_refused(name: str) -> None:
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(ConfigError, match=f"{name}.*cannot be used here"):
        build_optimizer(named(), OptimizerSection(name=f"pytorch_optimizer:{name}"))
