"""Loss and gradient of a few samples in three ways, for `rlpost.selfcheck.invariance` to compare.

As the run lays them out, in at least two micro-batches; one sample at a time without packing and chunks; and with plain
torch on the module itself, without the engine. Nothing is kept: training goes on as if this had not been.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlpost.learner.collate import lay_out
from rlpost.learner.micro_loss import micro_loss
from rlpost.learner.packing import Item, Layout, Passes, Update, count, items, plan_pass, rows_of
from rlpost.learner.prepass import needed
from rlpost.selfcheck.invariance import Figures, Fingerprint
from rlpost.types import TrainBatch

if TYPE_CHECKING:
    from rlpost.learner.policy import PolicyLearner

SAMPLES = 8
PER_PROMPT = 4
"""Samples of one prompt at most while there are others: prompts must be kept apart, and shared."""
COLUMNS = 2048
_SEED = 11


def examine(learner: PolicyLearner, batch: TrainBatch) -> Figures | None:
    """The figures of a batch, None if none of its samples has an advantage.

    Called by all ranks with the same batch. ``plain`` is rank 0's alone, and absent at ZeRO stage 3, where a rank does
    not hold the parameters.
    """
    rows = select(batch)
    if not rows:
        return None
    subset = TrainBatch(tuple(batch.samples[row] for row in rows), batch.step)
    # old log-probabilities stay away: a first update runs under the old policy
    lacking = dataclasses.replace(needed(subset, (), learner.config), before=(), during=())
    subset = learner.prepass(subset, lacking)
    every = tuple(range(len(rows)))
    sizes, ranks = items(subset.samples), learner.engine.world
    several = _in_several(every, sizes, ranks, learner.layout)
    with in_chunks_of(learner, _at_most_half(learner.chunk, several, sizes)):
        own = _through_engine(learner, subset, Update(every, several))
    # one sample at a time: a budget of one token
    alone = Layout(packed=False, micro_tokens=1)
    with in_chunks_of(learner, None):
        single = _through_engine(learner, subset, Update(every, plan_pass(every, sizes, ranks, alone)))
        plain = _plain(learner, subset) if learner.engine.rank == 0 and learner.engine.whole else None
    return Figures(len(rows), own, single, plain)


def select(batch: TrainBatch) -> list[int]:
    """A few short samples with something to learn from: several of one prompt, and more than one prompt."""
    groups: dict[int, list[int]] = {}
    for row, (sample, item) in enumerate(zip(batch.samples, items(batch.samples), strict=True)):
        if np.any(sample.advantages[sample.mask]):
            groups.setdefault(item.prompt, []).append(row)

    def length(row: int) -> tuple[int, int]:
        return batch.samples[row].length, row

    ordered = [sorted(group, key=length) for group in groups.values()]
    ordered.sort(key=lambda group: (-min(len(group), PER_PROMPT), length(group[0])))
    first = [row for group in ordered for row in group[:PER_PROMPT]]
    further = [row for group in ordered for row in group[PER_PROMPT:]]
    return sorted((first + further)[:SAMPLES])


def project(gradients: Iterable[tuple[str, Tensor]]) -> dict[str, np.ndarray]:
    r"""Each gradient g, row by row of a ``[n, COLUMNS]`` table, as Σ_r s_r g_r with fixed random signs s_r.

    Linear, and ⟨p(g), p(h)⟩ has the mean ⟨g, h⟩ over the signs. A gradient of at most COLUMNS numbers is kept whole.
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
def in_chunks_of(learner: PolicyLearner, chunk: int | None) -> Iterator[None]:
    """Logits of so many tokens at a time, None: all at once."""
    before, learner.chunk = learner.chunk, chunk
    try:
        yield
    finally:
        learner.chunk = before


def _in_several(rows: tuple[int, ...], sizes: Sequence[Item], ranks: int, layout: Layout) -> Passes:
    """The run's own layout with the largest budget, halved as often as it takes, that gives two micro-batches."""
    passes = plan_pass(rows, sizes, ranks, layout)
    budget = layout.micro_tokens
    while len(passes[0]) < 2 and budget > 1:
        budget //= 2
        passes = plan_pass(rows, sizes, ranks, dataclasses.replace(layout, micro_tokens=budget))
    return passes


def _at_most_half(chunk: int | None, passes: Passes, sizes: Sequence[Item]) -> int | None:
    """The run's chunk, or a smaller one that takes at least two for some micro-batch."""
    if chunk is None:
        return None
    most = max(sum(sizes[row].completion_tokens for row in rows_of(micro)) for share in passes for micro in share)
    return min(chunk, max(most // 2, 1))


def _through_engine(learner: PolicyLearner, subset: TrainBatch, update: Update) -> Fingerprint:
    try:
        loss = learner.accumulate(subset, update)["loss"]
        return Fingerprint(loss, project(learner.engine.gradients()))
    finally:
        learner.engine.discard()


def _plain(learner: PolicyLearner, subset: TrainBatch) -> Fingerprint:
    """torch.autograd on the module, sample by sample; the projections add up as the gradients do."""
    module, device = learner.engine.module, learner.engine.device
    counts = count(subset.samples, range(len(subset.samples)), learner.config.rollout.max_tokens)
    tuning = learner.engine.tuning
    owned = dict(tuning.trained())
    named = [(name, p) for name, p in module.model.named_parameters() if name in owned]
    total, sums = 0.0, dict[str, np.ndarray]()
    for row, sample in enumerate(subset.samples):
        micro = lay_out(subset.samples, (((row,),),), device)
        logprobs = module(micro.input_ids, micro.attention_mask, micro.index, micro.token_ids)
        loss, _ = micro_loss(micro.table(logprobs), micro, [sample], learner.settings, counts)
        gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        pairs = zip(named, gradients, strict=True)
        parts = project((name, tuning.restrict(name, g)) for (name, _), g in pairs if g is not None)
        for name, part in parts.items():
            sums[name] = sums[name] + part if name in sums else part
        total += float(loss.detach())
    return Fingerprint(total, sums)
