"""Keep a Hugging Face model deterministic while it is trained: no dropout, no skipped layers, no router noise.

A random forward pass gives the same tokens other log-probabilities at each pass, which makes importance ratios noise,
and the engine samples without it. Most architectures draw their noise by functions (``functional.dropout(x, p=...,
training=self.training)``), not by modules that could be found, so the model stays in evaluation mode for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

_NOISE = ("drop", "jitter")
"""Parts of the names of rates of noise: ``resid_pdrop``, ``layerdrop``, ``router_jitter_noise``."""


@dataclass(frozen=True, slots=True)
class Zeroed:
    """A rate of noise that was set to zero: the object that holds it, its name and its former value."""

    owner: Any
    name: str
    value: float


def make_deterministic(model: nn.Module) -> tuple[Zeroed, ...]:
    """Put a model into evaluation mode, and switch off the noise of the modules that may not be in it.

    transformers checkpoints gradients in modules in training mode only. With gradient checkpointing those modules (the
    layers and the decoder around them, not what is in them) are put into training mode, and every rate of noise among
    their attributes and in the configuration is set to zero.

    Args:
        model: a Hugging Face model, with gradient checkpointing already enabled or not.

    Returns:
        What was set to zero, for `restored`.
    """
    model.eval()
    checkpointed = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for module in checkpointed:
        module.training = True
    found: list[Zeroed] = []
    for owner in [*checkpointed, *_configs(checkpointed)]:
        for name, value in list(vars(owner).items()):
            if isinstance(value, float) and value and any(part in name.lower() for part in _NOISE):
                setattr(owner, name, 0.0)
                found.append(Zeroed(owner, name, value))
    return tuple(found)


@contextmanager
def restored(zeroed: Sequence[Zeroed]) -> Iterator[None]:
    """A block in which the rates of noise have their former values, to save the configuration as it was loaded."""
    for one in zeroed:
        setattr(one.owner, one.name, one.value)
    try:
        yield
    finally:
        for one in zeroed:
            setattr(one.owner, one.name, 0.0)


def _configs(modules: Iterable[nn.Module]) -> list[Any]:
    """The configurations of modules and those nested in them, each once."""
    found: dict[int, Any] = {}
    waiting = [config for module in modules if (config := getattr(module, "config", None)) is not None]
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            waiting += [value for value in vars(config).values() if hasattr(value, "to_dict")]
    return list(found.values())
