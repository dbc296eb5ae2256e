"""The module that the learner trains: a causal language model that returns log-probabilities of chosen tokens."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.algorithms.logprobs import chosen_logprobs, chunked_logprobs, surprise_moments
from rlpost.learner.model_support import chunking_unsupported_reason
from rlpost.learner.varlen import VarlenSequences


class LogprobModel(nn.Module):
    """A causal language model that returns log-probabilities of chosen tokens instead of logits.

    Args:
        model: a Hugging Face causal language model.
        temperature: sampling temperature of the tokens, > 0.
    """

    def __init__(self, model: Any, temperature: float = 1.0):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.head_separate = chunking_unsupported_reason(model) is None
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

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
            found = chunked_logprobs(chosen, head, token_ids.flatten(), temperature, chunks).view(token_ids.shape)
            if measured is None:
                return found
            with torch.no_grad():  # the logits of the chunks above are not kept
                return found, surprise_moments(head(chosen[measured].detach()), temperature)
        first = 0
        if self._keeps_logits:
            # logits of prompt positions are never read; a vocabulary of 50k makes them the largest tensor of all
            first = int((index % input_ids.shape[1]).min())
            inputs["logits_to_keep"] = torch.arange(first, input_ids.shape[1], device=input_ids.device)
        logits = self.model(**inputs, use_cache=False).logits
        row, column = index // input_ids.shape[1], index % input_ids.shape[1] - first
        found = chosen_logprobs(logits[row, column], token_ids, temperature)
        if measured is None:
            return found
        return found, surprise_moments(logits[row, column][measured].detach(), temperature)

    def _mask(self, seen: Tensor) -> Tensor:
        """Turn a boolean block mask into an additive one.

        Eager attention accepts no other, and torch's SDPA would convert a boolean mask again in every layer (measured:
        a fifth to a third of the attention's time on CPU).
        """
        if seen.dim() == 2:
            return seen
        dtype = self.model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
