"""An optimizer from its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rlpost.config.tuning import FOREIGN, OptimizerSection
from rlpost.errors import ConfigError, MissingPackageError, first_line
from rlpost.optim.chained import ChainedOptimizer
from rlpost.optim.lowrank import LowRankAdamW, preset
from rlpost.optim.shapes import is_map

Named = Sequence[tuple[str, nn.Parameter]]


def build_optimizer(named: Named, settings: OptimizerSection) -> torch.optim.Optimizer:
    """The optimizer for the trained parameters.

    DeepSpeed is given such an object too: an optimizer named in its JSON is compiled with g++ at start, which takes
    minutes on CPU.

    Args:
        named: trained parameters with their names; `is_map` decides by name and shape which are matrices.
        settings: name of the optimizer, learning rate, moments, weight decay, and its own arguments.

    Raises:
        ConfigError: for arguments that the optimizer does not take, or for one that needs more than gradients.
        MissingPackageError: if pytorch_optimizer is configured and absent.
    """
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    adam = {**common, "betas": settings.betas, "eps": settings.eps}
    if settings.name == "adamw":
        return torch.optim.AdamW(_by_ratio(named, settings.lora_plus_ratio), **adam)
    if settings.name.startswith(FOREIGN):
        return _foreign(named, settings, common)
    matrices = [p for name, p in named if is_map(name, tuple(p.shape))]
    others = [p for name, p in named if not is_map(name, tuple(p.shape))]
    if settings.name == "lowrank":
        low = settings.lowrank
        projection = preset(
            low.preset,
            rank=low.rank,
            gap=low.gap,
            scale=low.scale,
            rest_scale=low.residual_scale,
            energy=low.energy,
            reset=low.reset or None,
        )
        groups: list[dict[str, Any]] = [{"params": matrices, "projection": projection}, {"params": others}]
        return LowRankAdamW([group for group in groups if group["params"]], **adam)
    muon = {"adjust_lr_fn": "match_rms_adamw", **settings.args}
    try:
        parts = [torch.optim.Muon(matrices, **common, **muon)] if matrices else []
    except TypeError as error:
        raise ConfigError(f"optimizer.args: {error}") from None
    return ChainedOptimizer([*parts, *([torch.optim.AdamW(others, **adam)] if others else [])])


def _by_ratio(named: Named, ratio: float | None) -> list[dict[str, Any]]:
    """Parameter groups of LoRA+, in which B has ``ratio`` times the learning rate of A."""
    if ratio is None:
        return [{"params": [p for _, p in named]}]
    b = [p for name, p in named if ".lora_B." in name]
    others = [p for name, p in named if ".lora_B." not in name]
    groups = [{"params": others, "lr_ratio": 1.0}, {"params": b, "lr_ratio": ratio}]
    return [group for group in groups if group["params"]]


def _foreign(named: Named, settings: OptimizerSection, common: dict[str, Any]) -> torch.optim.Optimizer:
    name = settings.name.removeprefix(FOREIGN)
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise MissingPackageError(
            f"optimizer.name: {settings.name} needs pytorch_optimizer ({error}); pip install pytorch_optimizer"
        ) from error
    try:
        made: Any = pytorch_optimizer.load_optimizer(name)
        _try(lambda parameters: made(parameters, **common, **settings.args))
        return made([p for _, p in named], **common, **settings.args)
    except Exception as error:  # it has over a hundred optimizers, which raise all kinds of exceptions
        raise ConfigError(
            f"optimizer.name: pytorch_optimizer's {name!r} cannot be used here ({first_line(error)})"
        ) from None


def _try(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
    """Take two steps on a matrix and a vector: some optimizers need closures, second derivatives or names."""
    toys = [nn.Parameter(torch.full(shape, 0.1)) for shape in ((4, 4), (4,))]
    optimizer = make(toys)
    for _ in range(2):
        for toy in toys:
            toy.grad = torch.full_like(toy, 0.1)
        optimizer.step()
