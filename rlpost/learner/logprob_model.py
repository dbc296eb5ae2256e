"""The module that the learner trains: a causal language model that returns log-probabilities of chosen tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.algorithms.allowed import Allowed, allowed_logprobs, allowed_moments
from rlpost.algorithms.logprobs import chosen_logprobs, chunked_logprobs, surprise_moments
from rlpost.learner.deterministic import make_deterministic
from rlpost.learner.model_support import chunking_unsupported_reason, packing_unsupported_reason
from rlpost.learner.trial_forward import additive_mask
from rlpost.learner.varlen import VarlenSequences


class LogprobModel(nn.Module):
    """A causal language model that returns log-probabilities of chosen tokens instead of logits.

    The model stays deterministic whatever mode this module is put into: see `rlpost.learner.deterministic`.

    Args:
        model: a Hugging Face causal language model; gradient checkpointing is enabled before, if wanted.
        temperature: sampling temperature of the tokens, > 0.
        excluded: ids that no engine samples, because the tokenizer lacks them; see `chosen_logprobs`.

    Attributes:
        zeroed: what was changed in the model to make it deterministic.
    """

    excluded: Tensor | None

    def __init__(self, model: Any, temperature: float = 1.0, excluded: Sequence[int] = ()):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.zeroed = make_deterministic(model)
        # not in the state: checkpoints of before hold none, and the folder's tokenizer tells
        ids = torch.tensor(list(excluded), dtype=torch.long) if len(excluded) else None
        self.register_buffer("excluded", ids, persistent=False)
        self.head_separate = chunking_unsupported_reason(model) is None
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @cached_property
    def packing_unsupported_reason(self) -> str | None:
        """See `rlpost.learner.model_support`; it must first be read before the weights are sharded."""
        return packing_unsupported_reason(self.model)

    def train(self, mode: bool = True) -> LogprobModel:
        """Set this module's mode; the model in it keeps its own, which an optimizer's wrapper would change."""
        self.training = mode
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        index: Tensor,
        token_ids: Tensor,
        temperature: float | None = None,
        position_ids: Tensor | None = None,
        chunks: int = 1,
        varlen_sequences: VarlenSequences | None = None,
        measured: Tensor | None = None,
        allowed: Allowed | None = None,
    ) -> Any:
        """log π(token | context of the position ``index``).

        Args:
            input_ids: ``[R, L]``, padded on the right.
            attention_mask: ``[R, L]``, or ``[R, 1, L, L]`` bool, true where row i attends to column j.
            index: ``[N]``, flat position (of R·L) that predicts each token; any shape is accepted.
            token_ids: the tokens to score, same shape as ``index``.
            temperature: overrides the temperature given to the constructor.
            position_ids: ``[R, L]``; None means 0, 1, 2, … in each row.
            chunks: number of pieces in which logits are computed; see `rlpost.algorithms.logprobs.chunked_logprobs`.
                Models that transform their head's output compute all logits at once.
            varlen_sequences: the sequences of a single row, for a model whose attention takes them
                (`rlpost.learner.varlen`).
            measured: ``[K]``, numbers of the tokens among N whose distributions are measured too; then ``index`` has
                one dimension.
            allowed: the tokens that could be sampled at each of the N places, over which distributions are
                renormalised; None for all. With it ``index`` has one dimension.

        Returns:
            Log-probabilities, float32, same shape as ``index``. With ``measured`` a pair of them and ``[2, K]`` float32
            without gradient, see `rlpost.algorithms.logprobs.surprise_moments`.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": self._mask(attention_mask)}
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        if varlen_sequences is not None:
            inputs["varlen_sequences"] = varlen_sequences
        temperature = temperature or self.temperature
        if self.head_separate:
            hidden = self.model.get_decoder()(**inputs, use_cache=False).last_hidden_state
            chosen = hidden.flatten(0, 1)[index.flatten()]
            head = self.model.get_output_embeddings()
            restricted = {} if allowed is None else {"allowed": allowed}
            found = chunked_logprobs(
                chosen, head, token_ids.flatten(), temperature, chunks, self.excluded, **restricted
            ).view(token_ids.shape)
            if measured is None:
                return found
            with torch.no_grad():  # the logits of the chunks above are not kept
                return found, self._moments(head(chosen[measured].detach()), temperature, allowed, measured)
        first = 0
        if self._keeps_logits:
            # logits of prompt positions are never read; a vocabulary of 50k makes them the largest tensor of all
            first = int((index % input_ids.shape[1]).min())
            inputs["logits_to_keep"] = torch.arange(first, input_ids.shape[1], device=input_ids.device)
        logits = self.model(**inputs, use_cache=False).logits
        row, column = index // input_ids.shape[1], index % input_ids.shape[1] - first
        chosen = logits[row, column]
        if allowed is None:
            found = chosen_logprobs(chosen, token_ids, temperature, self.excluded)
        else:
            found = allowed_logprobs(chosen, token_ids, temperature, allowed)
        if measured is None:
            return found
        return found, self._moments(chosen[measured].detach(), temperature, allowed, measured)

    def _moments(self, logits: Tensor, temperature: float, allowed: Allowed | None, measured: Tensor) -> Tensor:
        """`surprise_moments` of the places ``measured``, of which these are the logits."""
        if allowed is None:
            return surprise_moments(logits, temperature, self.excluded)
        return allowed_moments(logits, temperature, allowed.chosen(measured))

    def _mask(self, seen: Tensor) -> Tensor:
        """The mask as the model takes it: a block mask is an additive one."""
        return seen if seen.dim() == 2 else additive_mask(seen, self.model.dtype)
