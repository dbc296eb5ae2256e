"""The micro-batch's loss. Not covered: its tensors (test_collate.py), the model (tests/property)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.algorithms.losses import LossSettings, policy_loss
from rlpost.errors import SelfCheckError
from rlpost.learner.collate import MicroBatch, collate
from rlpost.learner.micro_loss import micro_loss, old_or_current, pad
from rlpost.plugins.algorithm import BoundLoss
from rlpost.types import Denominators, TrainSample
from support import trajectories

LOSS = BoundLoss("clipped", policy_loss, LossSettings())
CPU = torch.device("cpu")


def sample(prompt: list[int], completion: list[int], mask: list[bool] | None = None, **more: Any) -> TrainSample:
    """A sample with advantages of 1."""
    return trajectories.sample(prompt, completion, advantages=1.0, mask=mask, **more)


def one_per_row(samples: list[TrainSample]) -> MicroBatch:
    return collate(samples, tuple(((row,),) for row in range(len(samples))), CPU)


def test_a_rank_without_samples_runs_a_zero_loss_and_its_backward_pass() -> None:
    micro = one_per_row([])
    assert not micro.mask.any()
    logprobs = torch.full((1, 1), -3.0, requires_grad=True)
    loss, sums = micro_loss(logprobs, micro, [], LOSS, Denominators(5, 1, 1, 8), 0)
    loss.backward()
    assert (loss.item(), sums) == (0.0, {})
    assert logprobs.grad is not None
    assert logprobs.grad.item() == 0.0


def test_pad_fills_on_the_right_and_wants_all_rows_or_none() -> None:
    found = pad([np.float32([1, 2]), np.float32([3])], 3, -7.0, torch.float32, CPU)
    assert found is not None
    assert found.tolist() == [[1, 2, -7], [3, -7, -7]]
    assert pad([None, None], 1, 0.0, torch.float32, CPU) is None
    with pytest.raises(ValueError, match="1 of 2 samples"):
        pad([np.float32([1]), None], 1, 0.0, torch.float32, CPU)


def test_without_proximal_logprobs_the_policy_is_its_own_reference() -> None:
    samples = [sample([1], [2, 3])]
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    loss, sums = micro_loss(logprobs, one_per_row(samples), samples, LOSS, Denominators(2, 1, 1, 8), 0)
    loss.backward()
    # ratio 1, advantage 1: loss -1; slope -1/2 on each of two tokens
    assert loss.item() == pytest.approx(-1.0)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-0.5, -0.5]]
    assert float(sums["ratio"]) == 1.0


def test_samples_with_and_without_proximal_logprobs_in_one_micro_batch() -> None:
    samples = [sample([1], [2, 3], proximal=[-1.5, -2.0]), sample([1], [4])]
    current = torch.tensor([[-1.0, -2.5], [-3.0, 0.0]], requires_grad=True)
    old = old_or_current(current, samples, 0)
    assert old.tolist() == [[-1.5, -2.0], [-3.0, 0.0]]
    assert not old.requires_grad


def test_a_sample_of_another_version_without_proximal_logprobs_is_refused() -> None:
    """The current policy is not the one that sampled it, so a ratio of 1 would be wrong without any error."""
    current = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    for samples, version in (
        ([sample([1], [2, 3], version=4), sample([1], [2, 3], version=3)], 4),
        ([sample([1], [2, 3], version=4), sample([1], [2, 3], version=5)], 4),
    ):
        said = rf"2 tokens .* policy version {samples[1].versions[-1]}, the learner is at version 4"
        with pytest.raises(SelfCheckError, match=said):
            old_or_current(current, samples, version)
        with pytest.raises(SelfCheckError, match=said):
            micro_loss(current, one_per_row(samples), samples, LOSS, Denominators(4, 2, 2, 8), version)
        assert old_or_current(current[:1], samples[:1], version).tolist() == [[-1.0, -2.0]]


def test_one_token_of_another_version_is_enough_to_be_refused_and_only_trained_ones_count() -> None:
    current = torch.tensor([[-1.0, -2.0, -3.0]])
    mixed = sample([1], [2, 3, 4], version=4)
    mixed.versions[2] = 3
    with pytest.raises(SelfCheckError, match=r"1 tokens .* version 3"):
        old_or_current(current, [mixed], 4)
    mixed.mask[2] = False
    assert old_or_current(current, [mixed], 4).tolist() == [[-1.0, -2.0, -3.0]]


def test_a_sample_of_another_version_with_proximal_logprobs_is_accepted_and_they_make_its_ratio() -> None:
    samples = [sample([1], [2, 3], version=2, proximal=[-1.0 - math.log(1.1), -2.0]), sample([1], [4], version=4)]
    current = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]], requires_grad=True)
    found = old_or_current(current, samples, 4)
    torch.testing.assert_close(found, torch.tensor([[-1.0 - math.log(1.1), -2.0], [-3.0, 0.0]]))
    _, sums = micro_loss(current, one_per_row(samples), samples, LOSS, Denominators(3, 2, 2, 8), 4)
    # ratios 1.1, 1 and 1
    assert float(sums["ratio"]) == pytest.approx(3.1 / 3)


def test_proximal_logprobs_make_the_ratio() -> None:
    samples = [sample([1], [2, 3], proximal=[-1.0 - math.log(1.1), -2.0])]
    logprobs = torch.tensor([[-1.0, -2.0]])
    loss, sums = micro_loss(logprobs, one_per_row(samples), samples, LOSS, Denominators(2, 1, 1, 8), 0)
    # ratios 1.1 and 1, advantages 1
    assert float(sums["ratio"]) == pytest.approx(1.05)
    assert loss.item() == pytest.approx(-1.05)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_masked_logprobs_reach_neither_loss_nor_metrics(bad: float) -> None:
    """The log-probability of a padding token is arbitrary: -inf where a model forbids token 0."""
    samples = [sample([1], [2, 3], [True, False], proximal=[-1.0, bad], rollout=[-1.0, bad])]
    logprobs = torch.tensor([[-1.0, bad]], requires_grad=True)
    loss, sums = micro_loss(logprobs, one_per_row(samples), samples, LOSS, Denominators(1, 1, 1, 8), 0)
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.0, 0.0]]
    assert {key: math.isfinite(float(value)) for key, value in sums.items()} == dict.fromkeys(sums, True)
