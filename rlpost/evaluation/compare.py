"""Comparison of two training methods on the same held-out prompts with the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.algorithms.intervals import over_problems, over_seeds
from rlpost.algorithms.passk import pass_at_k
from rlpost.errors import DataError
from rlpost.evaluation.lists import Listed
from rlpost.evaluation.outcomes import Outcome

Interval = tuple[float, float]
Measure = Callable[[Outcome], float]
"""Function from a prompt's outcome to a number; raises DataError where the outcome does not determine it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and prompts.

    Attributes:
        mean: mean over all seeds and prompts.
        problems: 95 % interval over prompts of the means over seeds (`over_problems`), for other prompts.
        seeds: 95 % interval over seeds of the means over prompts (`over_seeds`), for other runs; None for one seed.
    """

    mean: float
    problems: Interval
    seeds: Interval | None


def passes(k: int) -> Measure:
    """Unbiased pass@k; see `rlpost.algorithms.passk.pass_at_k`."""

    def measure(outcome: Outcome) -> float:
        if outcome.decided < k:
            raise DataError(f"prompt {outcome.id!r} has {outcome.decided} decided samples, pass@{k} needs {k}")
        return pass_at_k(outcome.decided, outcome.accepted, k)

    return measure


def of_list(value: Callable[[Listed], float]) -> Measure:
    """A measure of the greedy answer as a list, such as ``lambda one: one.ndcg(10)``."""

    def measure(outcome: Outcome) -> float:
        if outcome.listed is None:
            raise DataError(f"prompt {outcome.id!r} has no judged list; evaluate with evaluation.greedy")
        return value(outcome.listed)

    return measure


def mean(runs: Sequence[Sequence[Outcome]], measure: Measure) -> Estimate:
    """Mean of a measure over runs with different seeds on the same prompts.

    Raises:
        DataError: if the runs differ in prompts, or an outcome does not determine the measure.
    """
    return _estimate(_table(runs, measure))


def difference(first: Sequence[Sequence[Outcome]], second: Sequence[Sequence[Outcome]], measure: Measure) -> Estimate:
    """A measure of ``first`` minus that of ``second``, paired by prompt and by seed.

    Args:
        first: outcomes of each seed's run.
        second: outcomes of the runs to compare with, with the seeds in the same order.
        measure: function from an outcome to a number.

    Raises:
        DataError: as `mean`, or if the two differ in prompts or in the number of seeds.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} runs against {len(second)}; compare the same seeds")
    if [o.id for o in first[0]] != [o.id for o in second[0]]:
        raise DataError("the two sides were measured on different prompts; compare the same ones")
    return _estimate(_table(first, measure) - _table(second, measure))


def _table(runs: Sequence[Sequence[Outcome]], measure: Measure) -> np.ndarray:
    """Values ``[seeds, prompts]``."""
    names = [outcome.id for outcome in runs[0]]
    for run in runs:
        if [outcome.id for outcome in run] != names:
            raise DataError("the runs were measured on different prompts; compare the same ones")
    return np.array([[measure(outcome) for outcome in run] for run in runs])


def _estimate(table: np.ndarray) -> Estimate:
    by_prompt, by_seed = table.mean(axis=0).tolist(), table.mean(axis=1).tolist()
    return Estimate(float(table.mean()), over_problems(by_prompt), over_seeds(by_seed) if len(by_seed) > 1 else None)
