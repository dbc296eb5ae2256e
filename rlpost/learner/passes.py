"""Forward and backward passes over a rank's micro-batches.

Updates (`rlpost.learner.policy`), the gradient check (`rlpost.learner.gradient_check`) and the warm-up of a tuning
method (`rlpost.learner.tuning_warmup`) share them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rlpost.algorithms.allowed import Allowed
from rlpost.config.schema import RunConfig
from rlpost.decoding import AllowedIds, DecodingConstraint, along, chained
from rlpost.errors import ConstraintError, SelfCheckError
from rlpost.learner.collate import MicroBatch, collate, prefetch
from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.micro_loss import loss_inputs
from rlpost.learner.packing import (
    Layout,
    MicroBatchPlan,
    RankPlans,
    Update,
    denominators,
    logprob_chunks,
    plan_pass,
    sample_indices,
)
from rlpost.learner.prepass import Needed
from rlpost.learner.record import Recorder, drawn
from rlpost.learner.samples import Samples
from rlpost.plugins.algorithm import build_loss
from rlpost.protocols import TrainEngine
from rlpost.types import Denominators

_log = logging.getLogger(__name__)


def layout_of(config: RunConfig, module: LogprobModel) -> Layout:
    """The configured layout, or the padded one, with a warning, if the model cannot run packed."""
    learner = config.learner
    reason = module.packing_unsupported_reason if learner.layout == "packed" else None
    if reason:
        _log.warning("learner.layout: this model runs padded (%s); set it to padded to silence this", reason)
    packed = learner.layout == "packed" and reason is None
    return Layout(
        packed=packed,
        share_prompts=packed and learner.share_prompts,
        micro_tokens=learner.micro_tokens,
        varlen=packed and learner.attention == "varlen",
    )


class ModelPasses:
    """Forward and backward passes of one rank.

    Args:
        engine: forward and backward of the policy.
        reference: the frozen starting policy; None without a KL term or if the tuning method can disable its adapter.
        config: settings of layout, loss and sampling.
        constraint: which tokens answers may hold; None for all.

    Attributes:
        layout: layout and token budget of the micro-batches.
        chunk: number of tokens whose logits are computed at a time; None means all at once.
        loss: the configured loss.
    """

    def __init__(
        self,
        engine: TrainEngine,
        reference: torch.nn.Module | None,
        config: RunConfig,
        constraint: DecodingConstraint | None = None,
    ):
        self.engine, self.reference, self.config, self.constraint = engine, reference, config, constraint
        self.layout = layout_of(config, engine.module)
        excluded = engine.module.excluded
        self._excluded = None if excluded is None else excluded.cpu().numpy()
        self.chunk = config.learner.logprob_chunk
        self.loss = build_loss(config)
        self._max_tokens, self._prefetch = config.rollout.max_tokens, config.learner.prefetch
        self._spans = config.algorithm.spans_per_completion

    def run(
        self,
        model: Any,
        samples: Samples,
        plans: RankPlans,
        temperature: float | None = None,
        measured: Callable[[int, torch.device], torch.Tensor] | None = None,
        constrained: bool = True,
    ) -> Iterator[tuple[MicroBatch, Any]]:
        """This rank's micro-batches and their log-probabilities ``[N]`` under ``model``.

        With ``measured``, which chooses among N tokens, pairs of those and the moments of the chosen ones'
        distributions; see `rlpost.learner.logprob_model.LogprobModel.forward`.

        Raises:
            SelfCheckError: for a trained token that the tokenizer lacks: no engine samples it from the distribution
                that the learner scores.
            ConstraintError: for one that the constraint does not allow at its place.
        """
        constraint = self.constraint if constrained else None

        def make(micro: MicroBatchPlan) -> tuple[MicroBatch, Allowed | None]:
            made = collate(samples, micro, self.engine.device, self.layout.varlen)
            if self._excluded is not None:
                _check_known(samples, sample_indices(micro), self._excluded)
                if not micro:
                    # the masked token of an empty plan must have a log-probability too
                    known = int(np.setdiff1d(np.arange(len(self._excluded) + 1), self._excluded)[0])
                    made = dataclasses.replace(made, token_ids=torch.full_like(made.token_ids, known))
            return made, None if constraint is None else self._allowed(constraint, samples, made)

        chunks = logprob_chunks(plans, samples.sizes, self.chunk)
        collated = prefetch(make, plans[self.engine.rank], self._prefetch)
        for (micro, allowed), number in zip(collated, chunks, strict=True):
            inputs = (micro.input_ids, micro.attention_mask, micro.index, micro.token_ids)
            options = {"temperature": temperature, "position_ids": micro.position_ids, "chunks": number}
            if micro.varlen_sequences is not None:
                options["varlen_sequences"] = micro.varlen_sequences
            if measured is not None:
                options["measured"] = measured(len(micro.index), self.engine.device)
            if allowed is not None:
                options["allowed"] = allowed
            yield micro, model(*inputs, **options)

    def _allowed(self, constraint: DecodingConstraint, samples: Samples, micro: MicroBatch) -> Allowed:
        """The tokens that were allowed at each trained token of a micro-batch, found from the tokens alone."""
        if micro.indices:
            found = chained([_along(constraint, samples, index) for index in micro.indices])
        else:  # its one masked token
            found = AllowedIds(np.array([0, 1]), micro.token_ids.cpu().numpy())
        return Allowed(torch.from_numpy(found.offsets), torch.from_numpy(found.ids).to(self.engine.device))

    def logprobs(
        self,
        samples: Samples,
        indices: Sequence[int],
        reference: bool = False,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> dict[int, np.ndarray]:
        """Log-probabilities ``[L]`` of this rank's share of some samples, by their number in the batch.

        Args:
            samples: the whole batch.
            indices: the samples to score, over all ranks.
            reference: score under the frozen reference instead of the policy.
            temperature: overrides the sampling temperature.
            constrained: score under the constraint, if there is one.
        """
        model, block = self._reference() if reference else (self.engine.forward, contextlib.nullcontext())
        plans = plan_pass(indices, samples.sizes, self.engine.world, self.layout)
        found: dict[int, np.ndarray] = {}
        with torch.no_grad(), block:
            for micro, logprobs in self.run(model, samples, plans, temperature, constrained=constrained):
                found.update(micro.by_sample(logprobs))
        return found

    def prepass(self, samples: Samples, want: Needed) -> None:
        """Fill in the log-probabilities needed before the first update.

        They are shared over ranks, because any rank may train on any sample later.
        """
        share = self.engine.share_over_ranks
        if want.reference:
            samples.fill("ref_logprobs", share(self.logprobs(samples, want.reference, reference=True)))
        if want.before:
            samples.fill("proximal_logprobs", share(self.logprobs(samples, want.before)))

    def accumulate(
        self,
        samples: Samples,
        update: Update,
        version: int,
        keep: dict[int, np.ndarray] | None = None,
        recorder: Recorder | None = None,
    ) -> dict[str, float]:
        """Forward and backward over the micro-batches of an update.

        Args:
            samples: the whole batch.
            update: the minibatch and its micro-batches.
            version: policy version of the learner.
            keep: filled with the log-probabilities ``[L]`` of this rank's samples, by number in the batch.
            recorder: told of each micro-batch.

        Returns:
            Metrics, summed over micro-batches and ranks.

        Raises:
            SelfCheckError: for a sample of another version without proximal log-probabilities.
        """
        counts = self.denominators(samples, update.micro)
        last = len(update.micro[self.engine.rank]) - 1
        totals: dict[str, float] = dict.fromkeys(self.loss.metrics, 0.0)
        passed = self.run(self.engine.forward, samples, update.micro, measured=drawn)
        for number, (micro, (logprobs, moments)) in enumerate(passed):
            if keep is not None:
                keep.update(micro.by_sample(logprobs))
            chosen = [samples[index] for index in micro.indices]
            loss, sums = logprobs.sum() * 0.0, dict[str, torch.Tensor]()
            if chosen:
                # DeepSpeed watches its output: the recorder asks for the gradient of an alias, which ends above it
                logprobs = logprobs.view_as(logprobs)
                inputs = loss_inputs(micro.table(logprobs), micro, chosen, version)
                loss, sums = self.loss(inputs, counts)
                if recorder is not None:
                    recorder.add(micro, chosen, logprobs, moments, inputs, loss)
            self.engine.backward(loss, last=number == last)
            for key, value in sums.items():
                if key in totals:
                    totals[key] += float(value)
        return self.engine.sum_over_ranks(totals)

    def denominators(self, samples: Samples, plans: RankPlans) -> Denominators:
        """The counts of all samples of a plan, over all ranks, that a loss divides by."""
        own = [index for micro in plans[self.engine.rank] for index in sample_indices(micro)]
        counts = denominators(samples, own, self._max_tokens, self._spans)
        if self.engine.world == 1:
            return counts
        summed = self.engine.sum_over_ranks(
            {"tokens": counts.tokens, "sequences": counts.sequences, "spans": counts.spans}
        )
        return Denominators(**{name: round(value) for name, value in summed.items()}, max_tokens=self._max_tokens)

    def own_denominators(self, samples: Samples) -> Denominators:
        """The counts of all samples, made on this rank alone."""
        return denominators(samples, range(len(samples)), self._max_tokens, self._spans)

    def _reference(self) -> tuple[Any, contextlib.AbstractContextManager[object]]:
        """The model that scores under the starting policy, and the block in which to call it.

        It never falls back to the current policy: a KL term against that would be zero without any error.
        """
        if self.reference is not None:
            return self.reference, contextlib.nullcontext()
        if not self.engine.tuning.can_disable_adapter:
            raise ValueError("no reference model was loaded (algorithm.kl.coef is 0)")
        return self.engine.forward, self.engine.tuning.disable_adapter()


def _along(constraint: DecodingConstraint, samples: Samples, index: int) -> AllowedIds:
    sample = samples[index]
    answer = sample.token_ids[sample.prompt_tokens :]
    if not sample.mask[sample.prompt_tokens :].all():
        raise SelfCheckError(
            f"sample {index} has tokens of an environment between those of the policy, and rollout.constraint is on "
            "answers of one turn; the loop must not make such samples"
        )
    return allowed_along(constraint, answer.tolist(), index)


def allowed_along(constraint: DecodingConstraint, answer: Sequence[int], index: int) -> AllowedIds:
    """The tokens that were allowed at each place of the answer of a sample with this number.

    Raises:
        ConstraintError: for a token that was not allowed.
    """
    try:
        return along(constraint, answer)
    except ConstraintError as error:
        raise ConstraintError(
            f"sample {index} is to be trained on {error}; the engine does not sample under rollout.constraint as the "
            "learner scores, do not train on"
        ) from None


def _check_known(samples: Samples, indices: Sequence[int], excluded: np.ndarray) -> None:
    for index in indices:
        trained = samples[index].token_ids[samples[index].mask]
        unknown = trained[np.isin(trained, excluded)]
        if unknown.size:
            raise SelfCheckError(
                f"sample {index} is to be trained on token {int(unknown[0])}, which the model's tokenizer lacks; "
                "its engine must exclude the ids of rlpost.data.tokenizer.TextCodec.missing_ids from sampling"
            )
