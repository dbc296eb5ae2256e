"""Loss and gradient of a few samples in three ways, for `rlpost.selfcheck.invariance` to compare.

The three are the run's own layout in at least two micro-batches, one sample at a time without packing and chunks, and
plain torch on the Hugging Face model, from trajectories and rewards without the library's own credit, layout and loss
(`rlpost.selfcheck.independent`). The gradients are discarded, so training is unaffected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs
from rlpost.decoding import DecodingConstraint
from rlpost.errors import SelfCheckError
from rlpost.learner.packing import Layout, RankPlans, SampleSize, Update, plan_pass, sample_indices
from rlpost.learner.passes import ModelPasses, allowed_along
from rlpost.learner.prepass import Needed
from rlpost.learner.samples import Samples
from rlpost.selfcheck import plain_loss
from rlpost.selfcheck.plain_samples import Counts, PlainSample, counts_of_all
from rlpost.types import Denominators, GradientFigures, GradientSketch

COLUMNS = 2048
_SEED = 11


def gradient_figures(
    passes: ModelPasses, samples: Samples, version: int, plain: Sequence[PlainSample]
) -> GradientFigures:
    """Compute the figures of a few samples.

    All ranks call it with the same samples.

    Args:
        passes: the model and its loss.
        samples: the samples, as credit made them.
        version: policy version of the learner.
        plain: the same samples, made another way; see `rlpost.selfcheck.independent`.

    Returns:
        The figures; ``plain`` is None except on rank 0, and also there at ZeRO stage 3, where a rank does not hold the
        parameters.
    """
    if passes.constraint is not None:
        _check_walk(passes.constraint, plain)
    # proximal log-probabilities are not computed: a first update runs under the proximal policy
    if passes.loss.reads_reference:
        passes.prepass(samples, Needed(tuple(samples.lacking("ref_logprobs")), before=(), during=()))
    every = tuple(range(len(samples)))
    sizes, ranks = samples.sizes, passes.engine.world
    several = _in_several(every, sizes, ranks, passes.layout)
    with in_chunks_of(passes, _at_most_half(passes.chunk, several, sizes)):
        own = _through_engine(passes, samples, Update(every, several), version)
    # one sample at a time: a budget of one token
    alone = Layout(packed=False, micro_tokens=1)
    with in_chunks_of(passes, None):
        single = _through_engine(passes, samples, Update(every, plan_pass(every, sizes, ranks, alone)), version)
    replicated = passes.engine.rank == 0 and passes.engine.replicated
    return GradientFigures(len(samples), own, single, _plain(passes, samples, plain) if replicated else None)


def project(gradients: Iterable[tuple[str, Tensor]]) -> dict[str, np.ndarray]:
    r"""Project each gradient g, laid out as rows g_r of COLUMNS numbers, to Σ_r s_r g_r with fixed random signs s_r.

    The projection p is linear, and the mean of ⟨p(g), p(h)⟩ over the signs is ⟨g, h⟩. A gradient of at most COLUMNS
    numbers is kept whole.
    """
    found: dict[str, np.ndarray] = {}
    for name, gradient in gradients:
        flat = gradient.detach().float().flatten()
        whole = flat[: flat.numel() // COLUMNS * COLUMNS].view(-1, COLUMNS)
        signs = np.random.default_rng([_SEED, flat.numel()]).integers(0, 2, len(whole) + 1) * 2.0 - 1.0
        total = torch.from_numpy(signs[:-1]).float().to(flat.device) @ whole
        rest = flat[whole.numel() :]
        total[: len(rest)] += float(signs[-1]) * rest
        found[name] = (total if len(whole) else rest * float(signs[-1])).cpu().numpy()
    return found


@contextmanager
def in_chunks_of(passes: ModelPasses, chunk: int | None) -> Iterator[None]:
    """A block in which logits are computed for ``chunk`` tokens at a time; None means all at once."""
    before, passes.chunk = passes.chunk, chunk
    try:
        yield
    finally:
        passes.chunk = before


def _in_several(indices: tuple[int, ...], sizes: Sequence[SampleSize], ranks: int, layout: Layout) -> RankPlans:
    """Plan in the run's own layout, with the budget halved until each rank has at least two micro-batches."""
    plans = plan_pass(indices, sizes, ranks, layout)
    budget = layout.micro_tokens
    while len(plans[0]) < 2 and budget > 1:
        budget //= 2
        plans = plan_pass(indices, sizes, ranks, dataclasses.replace(layout, micro_tokens=budget))
    return plans


def _at_most_half(chunk: int | None, plans: RankPlans, sizes: Sequence[SampleSize]) -> int | None:
    """The run's chunk, or a smaller one with which at least one micro-batch takes two chunks."""
    if chunk is None:
        return None
    most = max(sum(sizes[i].completion_tokens for i in sample_indices(micro)) for share in plans for micro in share)
    return min(chunk, max(most // 2, 1))


def _through_engine(passes: ModelPasses, subset: Samples, update: Update, version: int) -> GradientSketch:
    try:
        loss = passes.accumulate(subset, update, version)["loss"]
        return GradientSketch(loss, project(passes.engine.gradients()))
    finally:
        passes.engine.discard()


def _plain(passes: ModelPasses, samples: Samples, plain: Sequence[PlainSample]) -> GradientSketch:
    """Loss and gradient by torch.autograd on the Hugging Face model itself, one sequence at a time.

    The sum of projections is the projection of the sum.
    """
    model, tuning = passes.engine.module.model, passes.engine.tuning
    owned = dict(tuning.trained())
    named = [(name, p) for name, p in model.named_parameters() if name in owned]
    counts = counts_of_all(plain, passes.config.rollout.max_tokens)
    total, sums = 0.0, dict[str, np.ndarray]()
    for sample, made in zip(plain, samples, strict=True):
        loss = _plain_loss(passes, sample, made.ref_logprobs, counts)
        gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        pairs = zip(named, gradients, strict=True)
        parts = project((name, tuning.mask_gradient(name, g)) for (name, _), g in pairs if g is not None)
        for name, part in parts.items():
            sums[name] = sums[name] + part if name in sums else part
        total += float(loss.detach())
    return GradientSketch(total, sums)


def _check_walk(constraint: DecodingConstraint, plain: Sequence[PlainSample]) -> None:
    """Verify that the tokens allowed along an answer are those that the constraint's definition gives its prefixes.

    Engine and learner share the walk, so an error of it is on both sides, and nothing else would show it.

    Raises:
        SelfCheckError: where they are others.
    """
    for sample in plain:
        answer = sample.token_ids[sample.places].tolist()
        found = allowed_along(constraint, answer, sample.number)
        for place in range(len(answer)):
            walked = found.ids[found.offsets[place] : found.offsets[place + 1]]
            if not np.array_equal(walked, constraint.allowed(answer[:place])):
                raise SelfCheckError(
                    f"constraint: at place {place} of an answer {len(walked)} tokens are allowed when it is walked "
                    f"along, and {len(constraint.allowed(answer[:place]))} by the prefix alone; rollout.constraint is "
                    "no function of the prefix (walk and allowed disagree), do not train on"
                )


def _allowed(constraint: DecodingConstraint, sample: PlainSample, like: Tensor) -> Tensor:
    """``[n, V]`` bool, the tokens that the constraint allows at each place by its definition, prefix by prefix."""
    answer = sample.token_ids[sample.places].tolist()
    mask = torch.zeros(like.shape, dtype=torch.bool)
    for place in range(len(answer)):
        mask[place, torch.from_numpy(constraint.allowed(answer[:place]).astype(np.int64))] = True
    return mask.to(like.device)


def _plain_loss(passes: ModelPasses, sample: PlainSample, reference: np.ndarray | None, counts: Counts) -> Tensor:
    """A sample's share of the loss, on-policy."""
    config, device, places = passes.config, passes.engine.device, sample.places
    ids = torch.from_numpy(sample.token_ids.astype(np.int64)).to(device)
    logits = passes.engine.module.model(input_ids=ids[None], use_cache=False).logits[0, places - 1]
    scaled = logits.float() / config.rollout.temperature
    if passes.constraint is not None:
        scaled = scaled.masked_fill(~_allowed(passes.constraint, sample, scaled), float("-inf"))
    if passes.engine.module.excluded is not None:
        scaled = scaled.index_fill(-1, passes.engine.module.excluded, float("-inf"))
    logp = torch.log_softmax(scaled, dim=-1).gather(1, ids[places][:, None])[:, 0].double()
    known = None if reference is None else reference[places]
    if plain_loss.unsupported_reason(config) is None:
        return plain_loss.loss(config, sample, logp, logp.detach(), known, counts)[0]

    def row(values: np.ndarray | None, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return None if values is None else torch.from_numpy(np.asarray(values)).to(device, dtype)[None]

    advantages, spans = row(sample.advantages), row(sample.spans, torch.long)
    assert advantages is not None
    assert spans is not None
    inputs = LossInputs(
        logprobs=logp.float()[None],
        proximal_logprobs=logp.detach().float()[None],
        advantages=advantages,
        mask=torch.ones_like(spans, dtype=torch.bool),
        span_ids=spans,
        rollout_logprobs=row(sample.rollout),
        ref_logprobs=row(known),
    )
    return passes.loss(inputs, Denominators(counts.tokens, counts.sequences, counts.spans, counts.max_tokens))[0]
