"""The loss and the advantage function that a configuration names, bound to their settings.

A loss is ``(LossInputs, LossSettings, Denominators, **loss_args) -> loss`` or ``-> (loss, metrics)``: the micro-batch's
scalar share of the loss, and detached metrics; both are summed over micro-batches. An advantage function is ``(rewards,
AdvantageSettings, **advantage_args) -> list``, with one list of numbers for each completion, parallel to its spans, or
None where the reward is None; with ``std: batch`` it is told not to divide, and what it returns is divided afterwards.
A class is instantiated with the arguments first, and the instance is called without them. `configs/examples/cispo.py`
is a worked example; `rlpost.plugins.trial_algorithm` has the rules for a loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from rlpost.algorithms.advantages import AdvantageSettings
from rlpost.algorithms.losses import METRICS, LossInputs, LossSettings
from rlpost.algorithms.surrogates import Surrogate
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError, describe_error
from rlpost.plugins import registry, usercode
from rlpost.plugins.build import instantiate
from rlpost.plugins.trial_call import short_repr
from rlpost.types import Denominators, Reward

Advantages = Callable[[Sequence[Reward | None]], list[list[float] | None]]
"""A function from the rewards of one group to advantages, with every setting bound."""


@dataclass(frozen=True, slots=True)
class BoundLoss:
    """A loss with its settings.

    Attributes:
        name: value of ``algorithm.loss``.
        function: the loss function, with its own arguments bound.
        settings: surrogate, clip range, level of the ratio, aggregation, KL term, importance limits.
        metrics: names of its metrics, ``loss`` included, the same for every micro-batch.
    """

    name: str
    function: Callable[[LossInputs, LossSettings, Denominators], Any]
    settings: LossSettings
    metrics: tuple[str, ...] = ()

    def __call__(self, inputs: LossInputs, counts: Denominators) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the loss, with gradient, and detached metrics, ``loss`` among them.

        Metrics other than those of `rlpost.algorithms.losses.policy_loss` are named ``loss/<name>``.
        """
        answer = self.function(inputs, self.settings, counts)
        loss, sums = answer if isinstance(answer, (tuple, list)) else (answer, {})
        named = {name if name in METRICS else f"loss/{name}": torch.as_tensor(value) for name, value in sums.items()}
        return loss, {**named, "loss": loss.detach()}

    @property
    def reads_reference(self) -> bool:
        """Whether the frozen reference's log-probabilities are needed."""
        return self.settings.kl_coef != 0.0


def build_loss(config: RunConfig) -> BoundLoss:
    """The configured loss.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    algorithm = config.algorithm
    settings = LossSettings(
        surrogate=cast(Surrogate, algorithm.loss) if algorithm.loss in registry.BUILTIN["losses"] else "clipped",
        ratio=algorithm.ratio,
        clip_low=algorithm.clip[0],
        clip_high=algorithm.clip[1],
        delta=algorithm.delta,
        aggregate=algorithm.aggregate,
        kl_coef=algorithm.kl.coef,
        kl_kind=algorithm.kl.kind,
        importance_cap=config.importance_cap,
        importance_low=algorithm.importance.low,
        importance_kind="mask" if algorithm.importance.mode == "mask" else "truncate",
        importance_level=algorithm.importance.level,
    )
    function = _bound("losses", algorithm.loss, algorithm.loss_args, "algorithm.loss", parameters=3)
    unnamed = BoundLoss(algorithm.loss, function, settings)
    try:
        _, sums = unnamed(example_inputs(settings, config.rollout.logprobs == "always"), EXAMPLE_COUNTS)
    except (Exception, SystemExit):  # the trial call reports errors of a plug-in, or its first update if trials are off
        if algorithm.loss in registry.BUILTIN["losses"]:
            raise
        return unnamed
    return BoundLoss(algorithm.loss, function, settings, tuple(sums))


@dataclass(frozen=True, slots=True)
class BoundAdvantage:
    """An advantage function with its settings; what it returns is checked in every call.

    Attributes:
        name: value of ``algorithm.advantage``.
        function: the function, with its own arguments bound.
        settings: baseline and normalisation, from the section ``algorithm``.
    """

    name: str
    function: Callable[[Sequence[Reward | None], AdvantageSettings], Any]
    settings: AdvantageSettings

    def __call__(self, rewards: Sequence[Reward | None]) -> list[list[float] | None]:
        """The advantages of a group.

        Raises:
            UserError: if the function fails or breaks the contract, with its name, and its line where there is one.
        """
        who = f"algorithm.advantage {self.name!r}"
        try:
            return self.answer(rewards)
        except UserError as error:
            raise UserError(f"{who}: {error}") from None
        except Exception as error:
            raise UserError(f"{who} fails{usercode.at_place(error)}: {describe_error(error)}") from error

    def answer(self, rewards: Sequence[Reward | None]) -> list[list[float] | None]:
        """As the call, but exceptions of the function pass, and messages do not name it."""
        answer = self.function(tuple(rewards), self.settings)
        if isinstance(answer, str) or not hasattr(answer, "__len__") or len(answer) != len(rewards):
            raise UserError(
                f"it answered {short_repr(answer)}; a list with one entry for each of {len(rewards)} completions is "
                "needed"
            )
        return [_row(row, reward) for row, reward in zip(answer, rewards, strict=True)]


def _row(row: Any, reward: Reward | None) -> list[float] | None:
    if reward is None:
        if row is not None:
            raise UserError("it gave an undecided completion an advantage; where the reward is None it must be None")
        return None
    if isinstance(row, str) or not hasattr(row, "__len__") or len(row) != len(reward):
        raise UserError(f"it answered {short_repr(row)} for {len(reward)} spans; one number for each is needed")
    try:
        values = [float(value) for value in row]
    except (TypeError, ValueError):
        raise UserError(f"it answered {short_repr(row)}; finite numbers are needed") from None
    if not all(abs(value) <= torch.finfo(torch.float32).max for value in values):  # False for NaN
        raise UserError(f"it answered {short_repr(row)}; finite numbers are needed")
    return values


def build_advantage(config: RunConfig) -> Advantages:
    """The configured advantage function.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    algorithm, settings = config.algorithm, advantage_settings(config)
    function = _bound("advantages", algorithm.advantage, algorithm.advantage_args, "algorithm.advantage", parameters=2)
    if algorithm.advantage == "group_relative":
        return partial(function, settings=settings)
    return BoundAdvantage(algorithm.advantage, function, settings)


def advantage_settings(config: RunConfig) -> AdvantageSettings:
    """What an advantage function is told; with ``std: batch`` it leaves the division to `rlpost.algorithms.credit`."""
    algorithm = config.algorithm
    return AdvantageSettings(
        baseline=algorithm.baseline, std=algorithm.std is True, ddof=algorithm.std_ddof, eps=algorithm.std_eps
    )


EXAMPLE_COUNTS = Denominators(tokens=11, sequences=4, spans=7, max_tokens=8)
"""Denominators that fit `example_inputs`."""


def example_inputs(settings: LossSettings, rollout_logprobs: bool = False) -> LossInputs:
    """Inputs for a trial call of a loss: four short completions, off-policy, with advantages of both signs and of 0.

    Args:
        settings: importance cap and KL coefficient, which say whether log-probabilities of the engine and of a
            reference are included.
        rollout_logprobs: include those of the engine in any case, as ``rollout.logprobs: always`` does.
    """
    source = torch.Generator().manual_seed(0)

    def drawn(scale: float) -> Tensor:
        return torch.randn(4, 4, generator=source) * scale

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    logprobs = (drawn(0.5) - 2.0).requires_grad_()
    old = logprobs.detach() + drawn(0.3)
    advantages = torch.tensor([[1.0], [-0.5], [0.7], [0.0]]).expand(4, 4).contiguous()
    rollout, reference = old + drawn(0.2), old + drawn(0.3)
    return LossInputs(
        logprobs=logprobs,
        proximal_logprobs=old,
        advantages=advantages,
        mask=mask,
        span_ids=torch.where(mask, torch.tensor([0, 0, 1, 1]), -1),
        rollout_logprobs=rollout if rollout_logprobs or settings.importance_cap is not None else None,
        ref_logprobs=reference if settings.kl_coef else None,
    )


def _bound(kind: str, name: str, arguments: Mapping[str, Any], key: str, parameters: int) -> Callable[..., Any]:
    target = registry.resolve(kind, name)
    who = f"{key} {name!r}"
    if isinstance(target, type):
        return instantiate(target, (), arguments, who)
    if not callable(target):
        raise UserError(f"{who} is {short_repr(target)}; a function or a class is needed")
    try:
        inspect.signature(target).bind(*(None,) * parameters, **arguments)
    except TypeError as error:
        raise UserError(
            f"{who} cannot be called with {dict(arguments)} ({error}); correct {key}_args, or the parameters as in "
            "rlpost.plugins.algorithm"
        ) from None
    except ValueError:  # some functions written in C have no signature
        pass
    return partial(target, **arguments)
