"""Memory of a learner rank, counted from its tensors, next to the prediction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from rlpost.config.schema import RunConfig
from rlpost.protocols import TrainEngine
from rlpost.tuning.memory import Shapes, learner_bytes


def footprint(engine: TrainEngine, config: RunConfig, shapes: Shapes) -> dict[str, float]:
    """Memory metrics of this rank, measured and planned.

    They are ``trainable_parameters``, and ``memory_mb/weights`` and ``memory_mb/optimizer`` in MiB, each also with the
    suffix ``_planned``.

    Args:
        engine: the engine after an update, so that its optimizer has state.
        config: the run configuration, from which `rlpost.tuning.memory` predicts.
        shapes: shapes of the starting model's tensors by name.
    """
    planned = learner_bytes(config, shapes)
    module: Any = engine.module
    buffers = [buffer for name, buffer in module.named_buffers() if name.endswith(".basis")]
    held = {"weights": _bytes([*module.parameters(), *buffers]), "optimizer": _bytes(_state(engine.optimizer))}
    # positions and masters of kept entries, and masks, are not tensors of the module
    adapters = planned["method"] if config.tuning.method in ("lora", "lora_xs") else 0
    wanted = {"weights": planned["weights"] + adapters, "optimizer": planned["optimizer"]}
    figures = {"trainable_parameters": float(sum(p.numel() for _, p in engine.tuning.trained()))}
    for name, value in held.items():
        figures |= {f"memory_mb/{name}": value / 2**20, f"memory_mb/{name}_planned": wanted[name] / 2**20}
    return figures


def _state(optimizer: Any) -> Iterable[Tensor]:
    """Tensors of an optimizer's state, also if DeepSpeed wraps the optimizer."""
    inner = getattr(optimizer, "optimizer", optimizer)
    parts = getattr(inner, "parts", [inner])
    for part in parts:
        for state in part.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
