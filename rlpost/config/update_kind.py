"""The kind of weight update that engines receive, by tuning method."""

from __future__ import annotations

from rlpost.config.schema import RunConfig
from rlpost.types import UpdateKind

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for ``max_lora_rank``."""


def kind_of(config: RunConfig) -> UpdateKind:
    """The kind of a run's weight updates: ``sync.kind``, or with ``auto`` the smallest that method and engines take."""
    match config.sync.kind:
        case "auto":
            if unsupported_reason(config, "adapter") is None:
                return "adapter"
            return "full" if unsupported_reason(config, "values") else "values"
        case "full" | "adapter" | "values" | "diff" as kind:
            return kind


def adapter_rank(config: RunConfig) -> int:
    """Rank of the adapters that a run sends; doubled where the initial adapter has to be subtracted."""
    tuning = config.tuning
    if tuning.method == "lora_xs":
        return tuning.lora_xs.r
    largest = max([tuning.lora.r, *tuning.lora.rank_pattern.values()])
    return 2 * largest if tuning.lora.moves_base else largest


def engine_rank(config: RunConfig) -> int | None:
    """The largest adapter rank that engines are prepared for; None if they receive no adapter."""
    if kind_of(config) != "adapter":
        return None
    return next(rank for rank in LORA_RANKS if rank >= adapter_rank(config))


def unsupported_reason(config: RunConfig, kind: UpdateKind) -> str | None:
    """Why a run cannot publish updates of a kind; None if it can."""
    tuning = config.tuning
    if kind == "adapter":
        if tuning.method not in ("lora", "lora_xs"):
            return f"tuning.method {tuning.method} makes no plain LoRA adapter"
        if adapter_rank(config) > LORA_RANKS[-1]:
            return f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, this one has {adapter_rank(config)}"
    if kind == "values":
        if tuning.method != "subnetwork":
            return f"tuning.method {tuning.method} has no mask; values are those of a subnetwork"
        if config.learner.zero_stage == 3:
            return "at ZeRO stage 3 no rank holds the kept entries"
    if kind in ("values", "diff", "adapter") and config.rollout.tensor_parallel > 1:
        return f"rollout.tensor_parallel {config.rollout.tensor_parallel} shards what the positions are of"
    return None
