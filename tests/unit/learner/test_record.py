"""What the record of an update says of how surprising samples are.

Not covered: differences by class (tests/unit/selfcheck/test_mismatch.py), traces (tests/unit/loop/test_trained_tokens.py).
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import torch

from rlpost.learner.packing import Update
from rlpost.learner.record import MEASURED, Recorder, drawn
from rlpost.types import Surprise

CPU = torch.device("cpu")


def recorded(batches: list[np.ndarray], entropy: float, variance: float) -> Surprise:
    """The record of micro-batches whose tokens all come from distributions of one entropy and variance."""
    recorder = Recorder(SimpleNamespace(sum_over_ranks=lambda sums: sums), 0, frozenset())  # type: ignore[arg-type]
    for values in batches:
        count = len(drawn(len(values), CPU))
        recorder._measure(torch.tensor(values), torch.tensor([[entropy] * count, [variance] * count]))
    return recorder.finish(Update((), ((),)), True, False).surprise


def test_all_of_few_tokens_are_measured_and_some_of_many() -> None:
    assert drawn(5, CPU).tolist() == [0, 1, 2, 3, 4]
    some = drawn(1000, CPU).tolist()
    assert len(some) == len(set(some)) == MEASURED
    assert some == sorted(some) == drawn(1000, CPU).tolist()
    assert recorded([np.array([-1.0, -3.0])], 1.5, 0.25) == Surprise(2.0, 3.0, 1.0, 0.5)
    found = recorded([np.full(4 * MEASURED, -2.0)], 1.5, 0.25)
    assert found == Surprise(4 * MEASURED, 1.5 * 4 * MEASURED, 0.5 * 4 * MEASURED, 0.25 * 16 * MEASURED)


def test_what_a_policy_samples_is_as_surprising_as_it_says_however_answers_are_put_together() -> None:
    """Answers end with a chance of 5 % at every place, and micro-batches hold answers of similar length.

    Tokens at even distances, each of which counts the same, would show 0.03 nats more than the entropy.
    """
    rng, end, total = np.random.default_rng(0), 0.05, Surprise()
    logs = np.array([math.log(end), math.log((1 - end) / 8)])
    chances = np.array([end, 1 - end])
    entropy = float(-(chances * logs).sum())
    variance = float((chances * logs**2).sum() - entropy**2)
    for _ in range(150):
        lengths = np.sort(rng.geometric(end, 48))
        answers = [np.array([logs[1]] * (length - 1) + [logs[0]], np.float32) for length in lengths]
        batches = [np.concatenate(answers[start : start + 12]) for start in range(0, 48, 12)]
        one = recorded(batches, entropy, variance)
        total = Surprise(*(getattr(total, f) + getattr(one, f) for f in ("tokens", "entropy", "excess", "variance")))
    assert abs(total.excess) < 4 * math.sqrt(total.variance)
    assert abs(total.excess / total.tokens) < 0.01
