"""vLLM's side of `rlpost.decoding`: a logits processor that leaves the allowed tokens of each constrained request.

vLLM applies it before temperature, top-p and top-k, and reports log-probabilities of what is left
(``logprobs_mode: processed_logprobs``). Its class is named in the engine's arguments; the constraint itself is handed
over in this process, and by a file to the workers of tensor parallelism.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from rlpost.decoding import DecodingConstraint, Walk, joined, walk_of
from rlpost.rollout.vllm.compat import ASKED
from rlpost.rollout.vllm.weights import shared_folder

_FILE = "rlpost_constraint"
"""Key of vLLM's ``additional_config`` with the constraint's file."""
_HANDED: dict[str, DecodingConstraint] = {}
"""Constraints of engines that are being loaded in this process, by the name of the file that is not written then."""


@contextmanager
def engine_arguments(constraint: DecodingConstraint | None, in_process: bool) -> Iterator[dict[str, Any]]:
    """Engine arguments with a constraint, to be used while the engine is loaded; empty without one.

    Args:
        constraint: the constraint.
        in_process: whether vLLM's only worker is in this process; else its workers read a pickle.
    """
    if constraint is None:
        yield {}
        return
    # vLLM's second model runner, a default on some GPUs from 0.30 on, has another interface
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    with shared_folder() as folder:
        file = Path(folder) / "constraint.pickle"
        if in_process:
            _HANDED[str(file)] = constraint
        else:
            file.write_bytes(pickle.dumps(constraint, protocol=pickle.HIGHEST_PROTOCOL))
        try:
            yield {"logits_processors": [ConstraintProcessor], "additional_config": {_FILE: str(file)}}
        finally:
            _HANDED.pop(str(file), None)


class ConstraintProcessor(LogitsProcessor):
    """Gives -inf to the logits of all tokens that a request's answer may not go on with.

    The state of a request follows from its tokens alone, so one that vLLM preempts, or computes again after new
    weights, finds its place by itself.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool):
        file = str(vllm_config.additional_config[_FILE])
        self.constraint = _HANDED[file] if file in _HANDED else pickle.loads(Path(file).read_bytes())
        self.answers: dict[int, _Answer] = {}

    def is_argmax_invariant(self) -> bool:
        """False: the likeliest token may not be allowed."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """See vLLM's class."""
        process_dict_updates(self.answers, batch_update, self._begun)

    def apply(self, logits: Tensor) -> Tensor:
        """See vLLM's class."""
        if not self.answers:
            return logits
        rows = list(self.answers)
        allowed = joined([self.answers[row].allowed() for row in rows])
        places = torch.tensor(rows).repeat_interleave(torch.from_numpy(allowed.offsets).diff())
        index = places.to(logits.device), torch.from_numpy(allowed.ids).long().to(logits.device)
        kept = logits[index]
        if len(rows) == len(logits):
            logits.fill_(float("-inf"))
        else:
            logits.index_fill_(0, torch.tensor(rows, device=logits.device), float("-inf"))
        logits[index] = kept
        return logits

    def _begun(self, params: Any, prompt: list[int] | None, sampled: list[int]) -> _Answer | None:
        if not (params.extra_args or {}).get(ASKED):
            return None
        return _Answer(walk_of(self.constraint), sampled)


class _Answer:
    """The answer of one request: vLLM's own list of its sampled tokens, and how many of them were walked along."""

    __slots__ = ("sampled", "seen", "walk")

    def __init__(self, walk: Walk, sampled: list[int]):
        self.walk, self.sampled, self.seen = walk, sampled, 0

    def allowed(self) -> Any:
        for token in self.sampled[self.seen :]:
            self.walk.advance(token)
        self.seen = len(self.sampled)
        return self.walk.allowed()
