"""Ids that no token belongs to: excluded from vLLM's distribution, as they are from the learner's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlpost.data.tokenizer import TextCodec


def exclude_missing(llm: Any, folder: str, trust_remote_code: bool = False) -> list[int]:
    """Keep an engine from sampling ids that the folder's tokenizer lacks; returns them.

    The log-probabilities that it reports are of the distribution without them. Nothing is changed if there are none.

    Args:
        llm: ``vllm.LLM`` with its model loaded.
        folder: Hugging Face folder of the model.
        trust_remote_code: run tokenizer code found in the folder.
    """
    rows = int(llm.llm_engine.vllm_config.model_config.get_vocab_size())
    missing = TextCodec(folder, trust_remote_code).missing_ids(rows)
    if missing:
        llm.apply_model(functools.partial(_exclude, ids=missing))
    return missing


def _exclude(model: Any, ids: Sequence[int]) -> None:
    """In the process of a worker, have its model give logits of -inf to some ids."""
    compute, held = model.compute_logits, torch.tensor(ids, dtype=torch.long)

    def without_missing(*given: Any, **options: Any) -> Tensor | None:
        nonlocal held
        logits = compute(*given, **options)
        if logits is None:  # with tensor parallelism one rank may have the logits of all
            return None
        if held.device != logits.device:
            held = held.to(logits.device)
        return logits.index_fill_(-1, held, float("-inf"))

    model.compute_logits = without_missing
