"""The samples of a batch whose tokens are elsewhere: a rank plans by receipts, and fetches its share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rlpost.algorithms.credit import is_credited, train_samples
from rlpost.learner.packing import SampleSize, numbered
from rlpost.learner.samples import Samples
from rlpost.selfcheck.masks import check_mask
from rlpost.trajectory import BatchReceipt, SampleReceipt
from rlpost.types import TrainSample


def received(batch: BatchReceipt, fetch: Callable[[Any], Any]) -> Samples:
    """Samples that are made when they are first used.

    Args:
        batch: what the driver holds of them.
        fetch: resolves handles; called when a sample is made.
    """
    receipts, known = batch.samples, dict[int, Any]()

    def once(handle: Any) -> Any:  # the members of a group share its handles
        if id(handle) not in known:
            known[id(handle)] = fetch(handle)
        return known[id(handle)]

    numbers = numbered(receipt.context for receipt in receipts)
    return Samples(
        [_size(number, receipt) for number, receipt in zip(numbers, receipts, strict=True)],
        lambda index: _made(receipts[index], once),
        [is_credited(receipt) for receipt in receipts],
        proximal=frozenset(i for i, receipt in enumerate(receipts) if receipt.proximal is not None),
    )


def _size(number: int, receipt: SampleReceipt) -> SampleSize:
    start, stop = receipt.span
    first = receipt.turns[0][0]
    return SampleSize(number, first - start, stop - first)


def _made(receipt: SampleReceipt, fetch: Callable[[Any], Any]) -> TrainSample:
    member, (start, stop) = receipt.receipt.index, receipt.span
    sample = train_samples(fetch(receipt.tokens)[member], receipt.reward, receipt.advantages)[receipt.part]
    check_mask(sample)
    if receipt.proximal is None:
        return sample
    return dataclasses.replace(sample, proximal_logprobs=fetch(receipt.proximal)[member][start:stop])
