"""Loss and gradient of a few samples in three ways, for `rlpost.selfcheck.invariance` to compare.

The three are the run's own layout in at least two micro-batches, one sample at a time without packing and chunks, and
plain torch on the module itself without the engine. The gradients are discarded, so training is unaffected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from rlpost.learner.collate import collate
from rlpost.learner.micro_loss import micro_loss
from rlpost.learner.packing import Layout, RankPlans, SampleSize, Update, plan_pass, sample_indices
from rlpost.learner.passes import ModelPasses
from rlpost.learner.prepass import Needed
from rlpost.learner.samples import Samples
from rlpost.types import GradientFigures, GradientSketch

SAMPLES = 8
PER_PROMPT = 4
"""Most samples of one prompt while others are available: the check needs both several prompts and shared prompts."""
COLUMNS = 2048
_SEED = 11


def gradient_figures(passes: ModelPasses, samples: Samples, version: int) -> GradientFigures | None:
    """Compute the figures of a batch; None if none of its samples has a nonzero advantage.

    All ranks call it with the same batch. ``plain`` is None except on rank 0, and also there at ZeRO stage 3, where a
    rank does not hold the parameters.
    """
    chosen = select(samples)
    if not chosen:
        return None
    subset = samples.subset(chosen)
    # proximal log-probabilities are not computed: a first update runs under the proximal policy
    if passes.loss.reads_reference:
        passes.prepass(subset, Needed(tuple(subset.lacking("ref_logprobs")), before=(), during=()))
    every = tuple(range(len(chosen)))
    sizes, ranks = subset.sizes, passes.engine.world
    several = _in_several(every, sizes, ranks, passes.layout)
    with in_chunks_of(passes, _at_most_half(passes.chunk, several, sizes)):
        own = _through_engine(passes, subset, Update(every, several), version)
    # one sample at a time: a budget of one token
    alone = Layout(packed=False, micro_tokens=1)
    with in_chunks_of(passes, None):
        single = _through_engine(passes, subset, Update(every, plan_pass(every, sizes, ranks, alone)), version)
        plain = _plain(passes, subset, version) if passes.engine.rank == 0 and passes.engine.replicated else None
    return GradientFigures(len(chosen), own, single, plain)


def select(samples: Samples) -> list[int]:
    """Numbers of up to `SAMPLES` short samples with a nonzero advantage: several per prompt, and several prompts."""
    groups: dict[int, list[int]] = {}
    for index, size in enumerate(samples.sizes):
        if samples.credited[index]:
            groups.setdefault(size.prompt, []).append(index)

    def length(index: int) -> tuple[int, int]:
        return samples.sizes[index].length, index

    ordered = [sorted(group, key=length) for group in groups.values()]
    ordered.sort(key=lambda group: (-min(len(group), PER_PROMPT), length(group[0])))
    first = [index for group in ordered for index in group[:PER_PROMPT]]
    further = [index for group in ordered for index in group[PER_PROMPT:]]
    return sorted((first + further)[:SAMPLES])


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


def _plain(passes: ModelPasses, subset: Samples, version: int) -> GradientSketch:
    """Loss and gradient by torch.autograd on the module, sample by sample; projections add up as gradients do."""
    module, device = passes.engine.module, passes.engine.device
    counts = passes.own_denominators(subset)
    tuning = passes.engine.tuning
    owned = dict(tuning.trained())
    named = [(name, p) for name, p in module.model.named_parameters() if name in owned]
    total, sums = 0.0, dict[str, np.ndarray]()
    for index, sample in enumerate(subset):
        micro = collate(subset, (((index,),),), device)
        logprobs = module(micro.input_ids, micro.attention_mask, micro.index, micro.token_ids)
        loss, _ = micro_loss(micro.table(logprobs), micro, [sample], passes.loss, counts, version)
        gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        pairs = zip(named, gradients, strict=True)
        parts = project((name, tuning.mask_gradient(name, g)) for (name, _), g in pairs if g is not None)
        for name, part in parts.items():
            sums[name] = sums[name] + part if name in sums else part
        total += float(loss.detach())
    return GradientSketch(total, sums)
