"""The samples of a batch as a rank uses them: planned by their sizes, made when they are first trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from rlpost.learner.packing import SampleSize, sizes_of
from rlpost.types import TrainSample


class Samples(Sequence[TrainSample]):
    """Samples by number, each made once and kept, with log-probabilities filled in as they become known.

    A rank plans the whole batch by the sizes, and makes only the samples of its share.

    Args:
        sizes: lengths and context of each sample.
        make: makes a sample.
        credited: whether each sample has a nonzero advantage.
        proximal: numbers of the samples that are made with their proximal log-probabilities.
        reference: numbers of the samples that are made with their reference log-probabilities.
    """

    def __init__(
        self,
        sizes: Sequence[SampleSize],
        make: Callable[[int], TrainSample],
        credited: Sequence[bool],
        proximal: frozenset[int] = frozenset(),
        reference: frozenset[int] = frozenset(),
    ):
        self.sizes, self.credited = list(sizes), list(credited)
        self._make, self._made = make, dict[int, TrainSample]()
        self._known = {"proximal_logprobs": set(proximal), "ref_logprobs": set(reference)}

    @classmethod
    def of(cls, samples: Sequence[TrainSample]) -> Samples:
        """Samples that are there already; returned unchanged if they are `Samples`."""
        if isinstance(samples, Samples):
            return samples
        given = list(samples)
        return cls(
            sizes_of(given),
            given.__getitem__,
            [bool(np.any(sample.advantages[sample.mask])) for sample in given],
            frozenset(i for i, sample in enumerate(given) if sample.proximal_logprobs is not None),
            frozenset(i for i, sample in enumerate(given) if sample.ref_logprobs is not None),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> TrainSample: ...

    @overload
    def __getitem__(self, index: slice) -> list[TrainSample]: ...

    def __getitem__(self, index: int | slice) -> TrainSample | list[TrainSample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._made:
            if not 0 <= index < len(self):
                raise IndexError(index)
            self._made[index] = self._make(index)
        return self._made[index]

    def __iter__(self) -> Iterator[TrainSample]:
        return (self[i] for i in range(len(self)))

    def lacking(self, column: str) -> list[int]:
        """Numbers of the samples whose ``proximal_logprobs`` or ``ref_logprobs`` are not known."""
        return [i for i in range(len(self)) if i not in self._known[column]]

    def fill(self, column: str, values: Mapping[int, np.ndarray]) -> None:
        """Fill in log-probabilities ``[L]`` of samples by number, where they are not known."""
        new = {i: array for i, array in values.items() if i not in self._known[column]}
        make = self._make
        self._make = lambda i: dataclasses.replace(make(i), **{column: new[i]}) if i in new else make(i)
        self._made |= {
            i: dataclasses.replace(self._made[i], **{column: array}) for i, array in new.items() if i in self._made
        }
        self._known[column] |= new.keys()

    def subset(self, chosen: Sequence[int]) -> Samples:
        """Some of the samples, numbered anew; what is filled in there is not seen here."""
        known = {
            column: frozenset(new for new, old in enumerate(chosen) if old in numbers)
            for column, numbers in self._known.items()
        }
        return Samples(
            [self.sizes[i] for i in chosen],
            lambda new: self[chosen[new]],
            [self.credited[i] for i in chosen],
            known["proximal_logprobs"],
            known["ref_logprobs"],
        )
