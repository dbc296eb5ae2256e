"""The check of coverage on small models."""

from __future__ import annotations

from typing import Any

import torch

from rlpost.learner.coverage import Start, check_coverage
from rlpost.tuning import masks
from rlpost.tuning.masks import Mask
from rlpost.tuning.peft_methods import Adapted, peft_config
from support.small_models import small


def check(model: Any, start: Start, tuning: Any, kind: str, folder: str) -> None:
    """Check, and see that every bit of the model is as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    owned = [(name, p.detach().clone()) for name, p in tuning.trained()]
    try:
        check_coverage(start, tuning, kind, next(model.parameters()).dtype, folder)
    finally:
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert all(torch.equal(one, p) for (_, one), (_, p) in zip(owned, tuning.trained(), strict=True))


def adapt(kind: str, dtype: str, folder: str, method: str = "lora", **arguments: Any) -> Adapted:
    model = small(kind, dtype)
    start = Start.of(model)
    tuning = Adapted(model, peft_config(method, arguments))
    check(model, start, tuning, "full", folder)
    return tuning


def masked(make: Any) -> Any:
    def made(model: Any) -> Any:
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        return make(model, Mask(masks.random(shapes, 0.2, 0)))

    return made
