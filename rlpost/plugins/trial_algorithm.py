"""The rules for a loss or an advantage function of the user's own, checked by one trial before a run depends on it.

The trial looks for errors that never crash: a mean over the micro-batch instead of the global count, a masked token
that is trained on, a KL term that is computed and not read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.plugins import registry
from rlpost.plugins.algorithm import (
    EXAMPLE_COUNTS,
    Advantages,
    BoundLoss,
    build_advantage,
    build_loss,
    example_inputs,
)
from rlpost.plugins.trial_call import plugin_errors, short_repr
from rlpost.types import Reward, SpanReward

_ADDS_UP = 1e-4
"""Largest difference of two sums of a loss, as a share of the loss or of 1: float32 rounds at 1e-7."""


def try_algorithm(config: RunConfig) -> None:
    """Try the loss and the advantage function of a configuration, if they are not rlpost's own.

    Raises:
        UserError: if one cannot be built, or breaks a rule; see `try_loss` and `try_advantage`.
    """
    algorithm = config.algorithm
    loss, advantages = build_loss(config), build_advantage(config)
    if not config.selfcheck.plugins:
        return
    if algorithm.loss not in registry.BUILTIN["losses"]:
        try_loss(loss)
    if algorithm.advantage not in registry.BUILTIN["advantages"]:
        try_advantage(advantages, algorithm.advantage)


def try_loss(loss: BoundLoss) -> None:
    """Call a loss on three short completions and check what it returns.

    Args:
        loss: the loss, bound to the run's settings.

    Raises:
        UserError: if it fails, is no finite scalar with a gradient, has a gradient at masked tokens, does not add up
            over micro-batches, or ignores log-probabilities that the configuration computes for it.
    """
    with plugin_errors(f"algorithm.loss {loss.name!r}", "on three completions"):
        inputs = example_inputs(loss.settings)
        value, gradient = _loss_and_gradient(loss, inputs)
        if bool(gradient[~inputs.mask].any()):
            raise UserError("masked tokens get a gradient; multiply by inputs.mask, or use token_weights")
        _check_additive(loss, inputs, value)
        _check_reads(loss, inputs, gradient)


def try_advantage(advantages: Advantages, name: str) -> None:
    """Call an advantage function on four completions, one of them undecided, and check what it returns.

    Args:
        advantages: the advantage function, bound to the run's settings.
        name: value of ``algorithm.advantage``.

    Raises:
        UserError: if it fails, or returns anything but finite numbers parallel to the spans.
    """
    with plugin_errors(f"algorithm.advantage {name!r}", "on a group of four"):
        spans = [(SpanReward(0, 2, value, 0), SpanReward(2, 4, 1.0 - value, 1)) for value in (0.0, 1.0, 0.5)]
        rewards: list[Reward | None] = [spans[0], None, *spans[1:]]
        answer: Any = advantages(rewards)
        if not isinstance(answer, Sequence) or len(answer) != len(rewards):
            raise UserError(
                f"it answered {short_repr(answer)}; a list with one entry for each of 4 completions is needed"
            )
        for row, reward in zip(answer, rewards, strict=True):
            if reward is None and row is not None:
                raise UserError(
                    "it gave an undecided completion an advantage; where the reward is None it must be None"
                )
            if reward is not None and (not isinstance(row, Sequence) or len(row) != len(reward)):
                raise UserError(f"it answered {short_repr(row)} for {len(reward)} spans; one number for each is needed")
            if any(not math.isfinite(value) for value in row or ()):
                raise UserError(f"it answered {short_repr(row)}; finite numbers are needed")


def _loss_and_gradient(loss: BoundLoss, inputs: LossInputs) -> tuple[float, Tensor]:
    """The loss of some rows of the example, and its gradient with respect to all of its log-probabilities."""
    logprobs = inputs.logprobs.detach().clone().requires_grad_()
    answer: Any = loss.function(replace(inputs, logprobs=logprobs), loss.settings, EXAMPLE_COUNTS)
    value, sums = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, {})
    if not isinstance(value, Tensor) or value.numel() != 1 or value.dim():
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else short_repr(value)
        raise UserError(f"it answered {shape}; a scalar tensor is needed, or (scalar, metrics)")
    if not isinstance(sums, Mapping) or any(not _is_number(figure) for figure in sums.values()):
        raise UserError(f"its metrics are {short_repr(sums)}; a mapping from names to scalars is needed")
    if not bool(torch.isfinite(value)):
        raise UserError(f"it is {value.detach().item()}; a finite number is needed")
    if not value.requires_grad:
        raise UserError("it has no gradient; compute it from inputs.logprobs without detach or .item()")
    [gradient] = torch.autograd.grad(value, [logprobs], allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        raise UserError("its gradient with respect to inputs.logprobs is zero; nothing would be learned")
    if not bool(torch.isfinite(gradient).all()):
        raise UserError("its gradient is not finite")
    return float(value.detach()), gradient


def _check_additive(loss: BoundLoss, inputs: LossInputs, value: float) -> None:
    """The shares of two micro-batches must add up to the loss of both: how samples are divided is arbitrary."""
    parts = (slice(0, 1), slice(1, None))
    shares = [_loss_and_gradient(loss, _rows(inputs, part))[0] for part in parts]
    if abs(sum(shares) - value) > _ADDS_UP * max(abs(value), 1.0):
        raise UserError(
            f"two micro-batches make {sum(shares):.6g}, both together {value:.6g}; divide by the given counts (see "
            "token_weights), not by a mean over the micro-batch"
        )


def _check_reads(loss: BoundLoss, inputs: LossInputs, gradient: Tensor) -> None:
    """Log-probabilities that the configuration computes for the loss must change it, or a setting has no effect."""
    settings = loss.settings
    for on, name, key in (
        (settings.kl_coef != 0.0, "ref_logprobs", "algorithm.kl.coef"),
        (settings.importance_cap is not None, "rollout_logprobs", "algorithm.importance"),
    ):
        if not on:
            continue
        moved = replace(inputs, **{name: getattr(inputs, name) - 0.5})
        if torch.equal(_loss_and_gradient(loss, moved)[1], gradient):
            remedy = "coef to 0" if name == "ref_logprobs" else "mode to off"
            raise UserError(f"{key} is on, but it does not read inputs.{name}; set {remedy}, or add the term")


def _rows(inputs: LossInputs, part: slice) -> LossInputs:
    given: dict[str, Any] = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
    cut: dict[str, Any] = {name: None if tensor is None else tensor[part] for name, tensor in given.items()}
    return LossInputs(**cut)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
