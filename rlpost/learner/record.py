"""What self-checks look at of an update: taken beside the loss, from what the loss was given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs
from rlpost.learner.collate import MicroBatch
from rlpost.learner.packing import Update, sample_indices
from rlpost.protocols import TrainEngine
from rlpost.selfcheck.mismatch import CLASSES, differences, position_classes
from rlpost.types import Differences, Surprise, TracedSample, TrainSample, UpdateRecord

MEASURED = 128
"""Tokens of a micro-batch whose full distributions are measured: enough for the mean, and little next to the update."""

_SUMS = ("tokens", "signed", "absolute", "square", "excess")
_SURPRISE = ("tokens", "entropy", "excess", "variance")


def drawn(count: int, device: torch.device) -> Tensor:
    """Numbers of at most `MEASURED` of ``count`` tokens, drawn at random, the same for equal counts.

    Evenly spaced ones would always have the last, which ends an answer: end tokens would be more frequent among them
    than the policy samples them.
    """
    if count <= MEASURED:
        return torch.arange(count, device=device)
    source = torch.Generator().manual_seed(count)
    return torch.randperm(count, generator=source)[:MEASURED].sort().values.to(device)


class Recorder:
    """The record of one update, on one rank.

    Args:
        engine: sums and shares over ranks.
        version: policy version of the learner.
        traced: numbers of the samples to trace.
    """

    def __init__(self, engine: TrainEngine, version: int, traced: frozenset[int]):
        self.engine, self.version, self.traced = engine, version, traced
        self._differences: dict[str, Differences] = dict.fromkeys(CLASSES, Differences())
        self._surprise = Surprise()
        self._untrained = 0
        self._traces: dict[int, np.ndarray] = {}

    def add(
        self,
        micro: MicroBatch,
        samples: Sequence[TrainSample],
        logprobs: Tensor,
        moments: Tensor,
        inputs: LossInputs,
        loss: Tensor,
    ) -> None:
        """Add a micro-batch, before its backward pass.

        Args:
            micro: the collated samples.
            samples: the samples it was collated from.
            logprobs: ``[N]`` under the current policy, with gradient.
            moments: ``[2, K]`` of those of them that are `drawn`.
            inputs: what the loss was given.
            loss: the micro-batch's share of the loss.
        """
        if not samples:
            return
        self._measure(logprobs.detach(), moments)
        given = {
            "proximal": inputs.proximal_logprobs,
            "reference": inputs.ref_logprobs,
            "advantages": inputs.advantages,
        }
        rows = {name: _rows(table, inputs.mask, samples) for name, table in given.items() if table is not None}
        for row, sample in enumerate(samples):
            self._compare(sample, rows["proximal"][row])
        if self.traced.isdisjoint(micro.indices):
            return
        (slope,) = torch.autograd.grad(loss, logprobs, retain_graph=True)
        current, gradient = micro.by_sample(logprobs), micro.by_sample(slope)
        for row, index in enumerate(micro.indices):
            if index in self.traced:
                nothing = np.full(samples[row].length, np.nan, np.float32)
                parts = [rows[name][row] if name in rows else nothing for name in given]
                self._traces[index] = np.stack([current[index], *parts, gradient[index]])

    def finish(self, update: Update, first: bool, kl: bool) -> UpdateRecord:
        """The record over all ranks.

        Args:
            update: the update.
            first: whether the policy was still the one that the step began with.
            kl: whether the loss has a KL term.
        """
        flat = {f"{name}/{part}": getattr(self._differences[name], part) for name in CLASSES for part in _SUMS}
        flat |= {f"surprise/{part}": getattr(self._surprise, part) for part in _SURPRISE}
        found = self.engine.sum_over_ranks({**flat, "untrained": float(self._untrained)})
        by_class = {name: Differences(*(found[f"{name}/{part}"] for part in _SUMS)) for name in CLASSES}
        traces = self.engine.share_over_ranks(self._traces) if self.traced else {}
        return UpdateRecord(
            epoch=update.epoch,
            first=first,
            indices=tuple(index for share in update.micro for micro in share for index in sample_indices(micro)),
            differences={name: sums for name, sums in by_class.items() if sums.tokens},
            untrained=round(found["untrained"]),
            surprise=Surprise(*(found[f"surprise/{part}"] for part in _SURPRISE)),
            traced={
                index: TracedSample(rows[0], rows[1], rows[2] if kl else None, rows[3], rows[4])
                for index, rows in traces.items()
            },
        )

    def _measure(self, logprobs: Tensor, moments: Tensor) -> None:
        entropy, variance = moments.double()
        excess = -logprobs[drawn(len(logprobs), logprobs.device)].double() - entropy
        old, sums = self._surprise, torch.stack([entropy.sum(), excess.sum(), variance.sum()]).tolist()
        # each token of a micro-batch counts as much as one of any other: micro-batches are made by length
        weight = len(logprobs) / max(len(entropy), 1)
        self._surprise = Surprise(
            old.tokens + len(logprobs),
            old.entropy + weight * sums[0],
            old.excess + weight * sums[1],
            old.variance + weight**2 * sums[2],
        )

    def _compare(self, sample: TrainSample, proximal: np.ndarray) -> None:
        self._untrained += int(((sample.versions >= 0) & ~np.isfinite(proximal)).sum())
        if sample.rollout_logprobs is None:
            return
        classes = position_classes(sample, self.version)
        for name, sums in differences(classes, proximal, sample.rollout_logprobs).items():
            self._differences[name] += sums


def _rows(table: Tensor, mask: Tensor, samples: Sequence[TrainSample]) -> list[np.ndarray]:
    """Rows of a ``[B, T]`` table that begins with the first trained token, as ``[L]`` float32 by sample; NaN where the
    loss is masked.
    """
    values, found = table.detach().float().masked_fill(~mask, torch.nan).cpu().numpy(), list[np.ndarray]()
    for row, sample in zip(values, samples, strict=True):
        whole = np.full(sample.length, np.nan, np.float32)
        whole[sample.prompt_tokens :] = row[: sample.length - sample.prompt_tokens]
        found.append(whole)
    return found
