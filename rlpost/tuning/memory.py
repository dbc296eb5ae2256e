"""Predict the memory of a learner rank and of an engine from a configuration and the model's shapes.

Weights, masters, gradients and optimizer state follow from what is trained and are exact for the plain torch learner.
Activations are estimated from the layer's widths; allocator and library overhead is not included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlpost.config.schema import RunConfig
from rlpost.config.tuning import FOREIGN
from rlpost.config.update_kind import engine_rank, kind_of
from rlpost.optim.lowrank import preset
from rlpost.optim.shapes import is_map

Shapes = Mapping[str, tuple[int, ...]]

_FLOAT = 4
_MOMENTS = 2 * _FLOAT
_STEP = 4
"""Bytes of the step counter that torch's AdamW keeps for each parameter."""
_CPU_CACHE_MB = 256
_MOVING = ("pissa", "olora", "corda", "loftq")
"""Prefixes of PEFT's LoRA initialisations that move a part of W into B A; no other method of PEFT does so."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Shapes of what the optimizer owns, by name, and ``extra``, the bytes of masks, positions and frozen bases.

    >>> Trained({"w": (2, 3)}, 0).size
    6
    """

    shapes: Shapes
    extra: int

    @property
    def size(self) -> int:
        """Number of trained values."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def trained(config: RunConfig, shapes: Shapes) -> Trained | None:
    """What a tuning method trains; None for a ``peft:`` method, whose parameters only PEFT knows.

    Args:
        config: tuning method and its settings.
        shapes: shapes of the model's tensors by name, tied tensors once.
    """
    tuning = config.tuning
    if tuning.method == "full":
        return Trained(shapes, 0)
    if tuning.method == "subnetwork":
        return _subnetwork(config, shapes)
    maps = {name: shape for name, shape in shapes.items() if is_map(name, shape)}
    if tuning.method == "lora_xs":
        chosen, rank = _targeted(maps, tuning.lora_xs.targets), tuning.lora_xs.r
        cores = {name: (min(rank, *shape), min(rank, *shape)) for name, shape in chosen.items()}
        bases = sum(cores[name][0] * sum(shape) for name, shape in chosen.items())
        return Trained(cores, _number(config) * bases)
    if tuning.method == "lora":
        return _lora(config, _targeted(maps, tuning.lora.targets))
    return None


def learner_bytes(config: RunConfig, shapes: Shapes, widths: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Bytes of one learner rank by part.

    Args:
        config: dtype, tuning method, optimizer, learner engine, sharding and batch sizes.
        shapes: shapes of the model's tensors by name, tied tensors once.
        widths: the model's ``config.json``, for the activations; None leaves them out.

    Returns:
        ``weights``, ``reference``, ``method`` (adapters, frozen bases, masks, positions), ``masters``, ``gradients``,
        ``optimizer``, ``watched`` (change tracking, on the host of rank 0), ``activations``. The parameters of a
        ``peft:`` method are not counted.
    """
    size = sum(math.prod(shape) for shape in shapes.values())
    number = _number(config)
    owned = trained(config, shapes) or Trained({}, 0)
    deepspeed = config.learner_engine == "deepspeed"
    stage = max(config.learner.zero_stage, int(number < _FLOAT)) if deepspeed else 0
    ranks = config.learner.workers
    own_weights = config.tuning.method in ("full", "subnetwork")
    mastered = config.tuning.compact or number < _FLOAT
    found = {
        "weights": size * number // (ranks if stage == 3 else 1),
        "reference": 0 if not config.algorithm.kl.coef or _shows_base(config) else size * number,
        "method": owned.extra + (0 if own_weights else owned.size * number),
        "masters": owned.size * _FLOAT // (ranks if stage else 1) if mastered else 0,
        "gradients": owned.size * _FLOAT // (ranks if stage >= 2 else 1),
        "optimizer": _optimizer(config, owned) // (ranks if stage else 1),
    }
    if config.logging.changes_every:
        found["watched"] = 2 * size * number + size // 8
    if widths is not None:
        found["activations"] = activations(config, widths)
    return found


def engine_bytes(config: RunConfig, shapes: Shapes, on_gpu: bool) -> dict[str, int]:
    """Bytes of one engine by part.

    The parts are ``weights``, ``packed`` copies of them on CPU, ``adapters``, ``positions`` of a subnetwork's entries,
    and ``cache``, the KV cache (on GPU 0: it is a share of the card).
    """
    size = sum(math.prod(shape) for shape in shapes.values())
    number, shards = _number(config), config.rollout.tensor_parallel
    rank = engine_rank(config)
    maps = [shape for name, shape in shapes.items() if is_map(name, shape)]
    linear = sum(math.prod(shape) for name, shape in shapes.items() if len(shape) == 2)
    return {
        "weights": size * number // shards,
        "packed": linear * number // shards if config.rollout.packed_weights and not on_gpu else 0,
        # the served adapter's buffers and vLLM's own copy
        "adapters": 2 * rank * sum(map(sum, maps)) * number // shards if rank else 0,
        "positions": 8 * Trained(_chosen(config, shapes)[1], 0).size if kind_of(config) == "values" else 0,
        # on a GPU the KV cache is a share of the card, whatever the model
        "cache": 0 if on_gpu else (config.rollout.kv_cache_mb or _CPU_CACHE_MB) << 20,
    }


def activations(config: RunConfig, widths: Mapping[str, Any]) -> int:
    """Estimate the bytes that one micro-batch keeps for its backward pass.

    Each layer keeps, per token, about nine vectors of the model's width, the keys and values, and four vectors of the
    feed-forward's width; with gradient checkpointing, one vector per layer and one layer in full are kept. Logits are
    held for ``logprob_chunk`` tokens.
    """
    number, tokens = _number(config), config.learner.micro_tokens
    hidden, layers = int(widths["hidden_size"]), int(widths["num_hidden_layers"])
    heads = int(widths.get("num_attention_heads") or 1)
    keys = hidden // heads * int(widths.get("num_key_value_heads") or heads)
    inner = int(widths.get("intermediate_size") or 4 * hidden)
    layer = 9 * hidden + 2 * keys + 4 * inner
    if config.tuning.method not in ("full", "subnetwork"):
        layer += 3 * hidden + 2 * keys + 2 * inner  # what adapters add to each matrix's output
    kept = layer * layers if not config.learner.gradient_checkpointing else layer + hidden * layers
    chunk = min(config.learner.logprob_chunk or tokens, tokens)
    return tokens * kept * number + 2 * chunk * int(widths["vocab_size"]) * _FLOAT


def _number(config: RunConfig) -> int:
    return _FLOAT if config.model.dtype == "float32" else 2


def _shows_base(config: RunConfig) -> bool:
    """Whether the starting policy can be computed without a second model."""
    tuning = config.tuning
    if tuning.method.startswith("peft:"):
        return not str(tuning.peft.get("init_lora_weights")).startswith(_MOVING)
    return tuning.compact or tuning.method == "lora_xs" or (
        tuning.method == "lora" and not tuning.lora.moves_base
    )  # fmt: skip


def _targeted(shapes: Shapes, targets: str | tuple[str, ...]) -> Shapes:
    if isinstance(targets, str):
        return shapes
    return {name: shape for name, shape in shapes.items() if name.removesuffix(".weight").endswith(targets)}


def _lora(config: RunConfig, chosen: Shapes) -> Trained:
    """Shapes A ``[r, in]`` and B ``[out, r]`` for each matrix ``[out, in]``."""
    lora = config.tuning.lora
    found: dict[str, tuple[int, ...]] = {}
    frozen = 0
    for name, (out, into) in chosen.items():
        layer = name.removesuffix(".weight")
        rank = next((r for part, r in lora.rank_pattern.items() if layer.endswith(part)), lora.r)
        found[f"{layer}.lora_B"] = (out, rank)
        if lora.freeze_a:
            frozen += rank * into
        else:
            found[f"{layer}.lora_A"] = (rank, into)
    return Trained(found, _number(config) * frozen)


def _chosen(config: RunConfig, shapes: Shapes) -> tuple[Shapes, Shapes]:
    """The tensors that may have mask entries, and the number of entries in each (exact for a density per matrix)."""
    section = config.tuning.subnetwork
    chosen: Shapes = shapes
    if section.targets == "all-linear":
        chosen = {name: shape for name, shape in shapes.items() if is_map(name, shape)}
    elif not isinstance(section.targets, str):
        words = section.targets
        chosen = {name: shape for name, shape in shapes.items() if any(word in name for word in words)}
    kept = {name: (max(round(math.prod(shape) * section.density), 1),) for name, shape in chosen.items()}
    return chosen, kept


def _subnetwork(config: RunConfig, shapes: Shapes) -> Trained:
    section = config.tuning.subnetwork
    chosen, kept = _chosen(config, shapes)
    size = Trained(kept, 0).size
    positions = 4 * size
    if section.engine == "hook":
        # a mask byte per entry of the selected tensors, and dense gradients
        return Trained(chosen, positions + sum(math.prod(shape) for shape in chosen.values()))
    return Trained(kept, positions + (size * _number(config) if config.algorithm.kl.coef else 0))


def _optimizer(config: RunConfig, owned: Trained) -> int:
    settings = config.optimizer
    if settings.name == "adamw" or settings.name.startswith(FOREIGN):
        return owned.size * _MOMENTS + _STEP * len(owned.shapes)
    maps = [shape for name, shape in owned.shapes.items() if is_map(name, shape)]
    others = [math.prod(shape) for name, shape in owned.shapes.items() if not is_map(name, shape)]
    if settings.name == "muon":
        return sum(map(math.prod, maps)) * _FLOAT + sum(others) * _MOMENTS + _STEP * len(others)
    projection = preset(settings.lowrank.preset, rank=settings.lowrank.rank)
    limited = projection.basis == "random" or projection.rest == "scaled"
    total = sum(others) * _MOMENTS
    for shape in maps:
        rank = min(projection.rank, *shape)
        total += rank * (max(shape) * _MOMENTS + min(shape) * _FLOAT) + (_FLOAT if limited else 0)
    return total
