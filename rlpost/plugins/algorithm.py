"""The loss and the advantage function that a configuration names, bound to their settings.

A loss is ``(LossInputs, LossSettings, Denominators, **loss_args) -> loss`` or ``-> (loss, metrics)``: the micro-batch's
scalar share of the loss, and detached metrics; both are summed over micro-batches. An advantage function is ``(rewards,
AdvantageSettings, **advantage_args) -> list``, with one list of numbers for each completion, parallel to its spans, or
None where the reward is None. A class is instantiated with the arguments first, and the instance is called without
them. `configs/examples/cispo.py` is a worked example; `rlpost.plugins.trial_algorithm` has the rules for a loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlpost.algorithms.advantages import AdvantageSettings
from rlpost.algorithms.losses import METRICS, LossInputs, LossSettings
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.plugins import registry
from rlpost.plugins.build import instantiate
from rlpost.types import Denominators, Reward

Advantages = Callable[[Sequence[Reward | None]], list[list[float] | None]]
"""A function from the rewards of one group to advantages, with every setting bound."""


@dataclass(frozen=True, slots=True)
class BoundLoss:
    """A loss with its settings.

    Attributes:
        name: value of ``algorithm.loss``.
        function: the loss function, with its own arguments bound.
        settings: clip range, level of the ratio, aggregation, KL term, importance cap.
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
        loss, sums = answer if isinstance(answer, tuple) else (answer, {})
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
        ratio=algorithm.ratio,
        clip_low=algorithm.clip[0],
        clip_high=algorithm.clip[1],
        aggregate=algorithm.aggregate,
        kl_coef=algorithm.kl.coef,
        kl_kind=algorithm.kl.kind,
        importance_cap=config.importance_cap,
    )
    function = _bound("losses", algorithm.loss, algorithm.loss_args, "algorithm.loss", LossInputs)
    unnamed = BoundLoss(algorithm.loss, function, settings)
    try:
        _, sums = unnamed(example_inputs(settings), EXAMPLE_COUNTS)
    except Exception:  # the trial call reports errors of a plug-in, or its first update if trials are off
        if algorithm.loss in registry.BUILTIN["losses"]:
            raise
        return unnamed
    return BoundLoss(algorithm.loss, function, settings, tuple(sums))


def build_advantage(config: RunConfig) -> Advantages:
    """The configured advantage function.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    algorithm = config.algorithm
    settings = AdvantageSettings(
        baseline=algorithm.baseline, std=algorithm.std, ddof=algorithm.std_ddof, eps=algorithm.std_eps
    )
    function = _bound("advantages", algorithm.advantage, algorithm.advantage_args, "algorithm.advantage", None)
    return partial(_advantages, function, settings)


EXAMPLE_COUNTS = Denominators(tokens=8, sequences=3, spans=5, max_tokens=8)
"""Denominators that fit `example_inputs`."""


def example_inputs(settings: LossSettings) -> LossInputs:
    """Inputs for a trial call of a loss: three short completions, off-policy and with advantages of both signs.

    Args:
        settings: importance cap and KL coefficient, which say whether log-probabilities of the engine and of a
            reference are included.
    """
    source = torch.Generator().manual_seed(0)

    def drawn(scale: float) -> Tensor:
        return torch.randn(3, 4, generator=source) * scale

    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)
    logprobs = (drawn(0.5) - 2.0).requires_grad_()
    old = logprobs.detach() + drawn(0.3)
    advantages = torch.tensor([[1.0], [-0.5], [0.7]]).expand(3, 4).contiguous()
    rollout, reference = old + drawn(0.2), old + drawn(0.3)
    return LossInputs(
        logprobs=logprobs,
        old_logprobs=old,
        advantages=advantages,
        mask=mask,
        span_ids=torch.where(mask, torch.tensor([0, 0, 1, 1]), -1),
        rollout_logprobs=rollout if settings.importance_cap is not None else None,
        ref_logprobs=reference if settings.kl_coef else None,
    )


def _bound(kind: str, name: str, arguments: Mapping[str, Any], key: str, first: type | None) -> Callable[..., Any]:
    target = registry.resolve(kind, name)
    who = f"{key} {name!r}"
    if isinstance(target, type):
        return instantiate(target, (), arguments, who)
    if not callable(target):
        raise UserError(f"{who} is {target!r}; a function or a class is needed")
    try:
        positional = (None,) * (3 if first is LossInputs else 2)
        inspect.signature(target).bind(*positional, **arguments)
    except TypeError as error:
        raise UserError(
            f"{who} cannot be called with {dict(arguments)} ({error}); see rlpost.plugins.algorithm"
        ) from None
    except ValueError:  # some functions written in C have no signature
        pass
    return partial(target, **arguments)


def _advantages(
    function: Callable[..., list[list[float] | None]], settings: AdvantageSettings, rewards: Sequence[Reward | None]
) -> list[list[float] | None]:
    return function(rewards, settings)
