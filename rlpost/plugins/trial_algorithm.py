"""The rules for a loss or an advantage function of the user's own, checked by one trial before a run depends on it.

The trial looks for errors that never crash: a mean over the micro-batch instead of the global count, a masked token
that is trained on, a KL term that is computed and not read, the wrong sign, a group that divides by zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlpost.algorithms.losses import LossInputs, LossSettings
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.plugins import registry
from rlpost.plugins.algorithm import (
    EXAMPLE_COUNTS,
    BoundAdvantage,
    BoundLoss,
    build_advantage,
    build_loss,
    example_inputs,
)
from rlpost.plugins.trial_call import plugin_errors, short_repr
from rlpost.types import Reward, SpanReward

_SAME = 1e-4
"""Largest difference of equal results, as a share of their size: float32 rounds at 1e-7."""
_PADDING = 3
"""Columns of padding that are added to the example; a micro-batch is as wide as its longest completion."""
_SHIFTS = (-3.0, -0.5, 0.5, 3.0)
"""Nats by which log-probabilities are moved: a mask of extreme ratios reads them too, and sees large ones only."""


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
        try_loss(loss, example_inputs(loss.settings, config.rollout.logprobs == "always"))
    if algorithm.advantage not in registry.BUILTIN["advantages"]:
        assert isinstance(advantages, BoundAdvantage)
        try_advantage(advantages)


def try_loss(loss: BoundLoss, example: LossInputs) -> None:
    """Call a loss on four short completions, off-policy and on-policy, and check what it returns.

    On-policy (the current policy is the one that sampled) is the first update of every step.

    Args:
        loss: the loss, bound to the run's settings.
        example: completions that are off-policy, with advantages of both signs and of 0.

    Raises:
        UserError: if it fails, changes its inputs, answers differently when called again, is no finite scalar with a
            finite gradient, has no gradient on-policy, has one at masked tokens, depends on how completions are divided
            into micro-batches, ignores the advantages or turns their sign around, or ignores log-probabilities that the
            configuration computes for it, or how the configuration weights by them.
    """
    with plugin_errors(f"algorithm.loss {loss.name!r}", "on four completions"):
        on_policy = replace(example, proximal_logprobs=example.logprobs.detach())
        for inputs, where in ((on_policy, "on-policy"), (example, "off-policy")):
            whole = _call(loss, inputs, where)
            _check_repeatable(whole, _call(loss, inputs, where))
            if bool(whole.gradient[~inputs.mask].any()):
                raise UserError("masked tokens get a gradient; multiply by inputs.mask, or use token_weights")
            if where == "on-policy":
                _check_direction(loss, inputs, whole)
            _check_division(loss, inputs, whole, where)
        _check_reads(loss, example)


def try_advantage(advantages: BoundAdvantage) -> None:
    """Call an advantage function on small groups of every kind and check what it returns.

    Args:
        advantages: the advantage function, bound to the run's settings.

    Raises:
        UserError: if it fails, returns anything but finite numbers parallel to the spans, depends on the order of the
            completions, is 0 for all, or gives a higher reward a smaller advantage.
    """
    who = f"algorithm.advantage {advantages.name!r}"
    for kind, rewards in _GROUPS.items():
        with plugin_errors(who, f"on {kind}"):
            rows = advantages.answer(rewards)
            turned = advantages.answer((*rewards[1:], *rewards[:1]))
            if not all(_alike(one, other) for one, other in zip([*rows[1:], *rows[:1]], turned, strict=True)):
                raise UserError(
                    f"it answered {short_repr(rows)}, and {short_repr(turned)} with the first completion put last; "
                    "every completion must keep its own advantage"
                )
    with plugin_errors(who, "on rewards of 0, 1 and 0.5"):
        low, high, middle = (row[0] for row in advantages.answer(tuple(map(_plain, (0.0, 1.0, 0.5)))) if row)
        if low == high == middle or high < low:
            raise UserError(
                f"its advantages are {low:.4g}, {high:.4g} and {middle:.4g}; a higher reward needs a higher one"
            )


def _plain(*values: float) -> Reward:
    return tuple(SpanReward(2 * k, 2 * k + 2, value, k) for k, value in enumerate(values))


_GROUPS: Mapping[str, tuple[Reward | None, ...]] = {
    "a group of four": (_plain(0.0, 1.0), None, _plain(1.0, 0.0), _plain(0.5, 0.5)),
    "a group whose rewards are equal": (_plain(1.0), _plain(1.0), _plain(1.0)),
    "a group with one decided completion": (None, _plain(1.0), None),
    "a group of one": (_plain(0.5),),
    "a group with unequal numbers of spans": (_plain(0.0, 1.0, 1.0), _plain(1.0), _plain(0.5, 0.0)),
    "a group with a completion without spans": (_plain(1.0), (), _plain(0.0)),
    "a group with negative rewards": (_plain(-1.0), _plain(-3.0), _plain(0.0)),
}


def _alike(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    pairs = zip(one, other, strict=True)
    return all(math.isclose(a, b, rel_tol=_SAME, abs_tol=1e-6) for a, b in pairs)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A loss, its gradient with respect to the log-probabilities, and its metrics."""

    value: float
    gradient: Tensor
    metrics: dict[str, float]


def _call(loss: BoundLoss, inputs: LossInputs, where: str) -> _Answer:
    """The loss of rows of the example; the function gets copies, so that what it does to them stays without effect."""
    given = _each(inputs, lambda tensor: tensor.detach().clone())
    leaf = given.logprobs.requires_grad_()
    given = replace(given, logprobs=leaf * 1)  # in a run it is no leaf either
    answer: Any = loss.function(given, loss.settings, EXAMPLE_COUNTS)
    for field in dataclasses.fields(inputs):
        before, after = getattr(inputs, field.name), getattr(given, field.name)
        if before is not None and not torch.equal(before, after):
            raise UserError(f"it changes inputs.{field.name} in place; let it work on a copy")
    value, sums = answer if isinstance(answer, (tuple, list)) and len(answer) == 2 else (answer, {})
    if not isinstance(value, Tensor) or value.numel() != 1 or value.dim():
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else short_repr(value)
        raise UserError(f"it answered {shape}; a scalar tensor is needed, or (scalar, metrics)")
    if value.dtype not in (torch.float32, torch.float64):
        raise UserError(f"it is of {value.dtype}; compute it in float32, in which its inputs are")
    if not bool(torch.isfinite(value)):
        raise UserError(f"it is {value.detach().item()} {where}; a finite number is needed")
    if not value.requires_grad:
        raise UserError("it has no gradient; compute it from inputs.logprobs without detach or .item()")
    [gradient] = torch.autograd.grad(value, [leaf], allow_unused=True)
    gradient = torch.zeros_like(leaf) if gradient is None else gradient
    if not bool(torch.isfinite(gradient).all()):
        raise UserError(f"its gradient is not finite {where}; see that no root, quotient or logarithm is taken at 0")
    return _Answer(float(value.detach()), gradient, _metrics(sums, float(value.detach())))


def _metrics(sums: Any, value: float) -> dict[str, float]:
    if not isinstance(sums, Mapping) or any(not _is_number(figure) for figure in sums.values()):
        raise UserError(f"its metrics are {short_repr(sums)}; a mapping from names to finite scalars is needed")
    for name in sums:
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise UserError(f"a metric is named {name!r}; a line of text is needed")
    if not _close(float(sums.get("loss", value)), value):
        raise UserError("its metric 'loss' is not the loss; give it another name")
    return {name: float(figure) for name, figure in sums.items()}


def _check_repeatable(first: _Answer, second: _Answer) -> None:
    if not torch.equal(first.gradient, second.gradient) or first.value != second.value:
        raise UserError("it answers differently when called again; it must not draw random numbers or keep a state")


def _check_direction(loss: BoundLoss, inputs: LossInputs, whole: _Answer) -> None:
    """The part of the gradient that comes with the advantages must raise what has a positive one."""
    if not bool(whole.gradient.any()):
        raise UserError(
            "its gradient with respect to inputs.logprobs is zero on-policy, as at the first update of every step; "
            "nothing would be learned"
        )
    opposite = _call(loss, replace(inputs, advantages=-inputs.advantages), "on-policy").gradient
    push = float(((whole.gradient - opposite) * inputs.advantages).sum())
    if torch.equal(whole.gradient, opposite):
        raise UserError("its gradient does not depend on inputs.advantages; multiply the policy term by them")
    if push > 0:
        raise UserError(
            "it makes completions with a positive advantage less likely; return the loss, which is minimised, so minus "
            "the objective"
        )


def _check_division(loss: BoundLoss, inputs: LossInputs, whole: _Answer, where: str) -> None:
    """Micro-batches, the order in them and the width of their padding are arbitrary, and must not matter."""
    rows = len(inputs.mask)
    for parts in ([[0], [1], [2], [3]], [[3, 1], [2, 0]], [list(range(rows))]):
        gradient, value = torch.zeros_like(whole.gradient), 0.0
        metrics = dict.fromkeys(whole.metrics, 0.0)
        for part in parts:
            width = 1 + int(inputs.mask[part].any(0).nonzero().max())
            wide = inputs.mask.shape[1] + _PADDING if len(parts) == 1 else width
            share = _call(loss, _each(inputs, lambda tensor, p=part, w=wide: _cut(tensor, p, w)), where)
            kept = min(wide, inputs.mask.shape[1])
            gradient[part, :kept] = share.gradient[:, :kept]
            value += share.value
            if share.metrics.keys() != metrics.keys():
                raise UserError(f"its metrics are {sorted(metrics)} or {sorted(share.metrics)}; always give the same")
            metrics = {name: metrics[name] + figure for name, figure in share.metrics.items()}
        label = "more padding makes" if len(parts) == 1 else f"{len(parts)} micro-batches make"
        _check_sums(whole, _Answer(value, gradient, metrics), label)


def _check_sums(whole: _Answer, found: _Answer, label: str) -> None:
    remedy = "divide by the given counts (see token_weights), not by a mean over the micro-batch"
    apart = float((whole.gradient - found.gradient).abs().max())
    if not _close(found.value, whole.value):
        raise UserError(f"{label} {found.value:.6g}, all together {whole.value:.6g}; {remedy}")
    if apart > _SAME * float(whole.gradient.abs().max()):
        raise UserError(f"{label} another gradient (by {apart:.3g}); {remedy}")
    for name, figure in whole.metrics.items():
        if not _close(found.metrics[name], figure):
            raise UserError(f"metric {name!r}: {label} {found.metrics[name]:.6g}, all together {figure:.6g}; {remedy}")


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=1e-7)


def _check_reads(loss: BoundLoss, inputs: LossInputs) -> None:
    """Log-probabilities that the configuration computes for the loss must change it, or a setting has no effect."""
    settings = loss.settings
    whole = _call(loss, inputs, "off-policy")
    for on, name, key in (
        (settings.kl_coef != 0.0, "ref_logprobs", "algorithm.kl.coef"),
        (settings.importance_cap is not None, "rollout_logprobs", "algorithm.importance"),
    ):
        if not on:
            continue
        moved = [_call(loss, replace(inputs, **{name: getattr(inputs, name) + by}), "off-policy") for by in _SHIFTS]
        if all(one.value == whole.value and torch.equal(one.gradient, whole.gradient) for one in moved):
            remedy = "coef to 0" if name == "ref_logprobs" else "mode to off"
            raise UserError(f"{key} is on, but it does not read inputs.{name}; set {remedy}, or add the term")
    if settings.importance_cap is not None:
        _check_importance_settings(loss, inputs)


def _check_importance_settings(loss: BoundLoss, inputs: LossInputs) -> None:
    """A loss that truncates token by token, whatever is configured, computes something else than the file says."""
    default = LossSettings()
    assert inputs.rollout_logprobs is not None
    moved = [replace(inputs, rollout_logprobs=inputs.rollout_logprobs + by) for by in (0.0, *_SHIFTS)]
    found = [_call(loss, one, "off-policy") for one in moved]
    for key, name in (("mode", "importance_kind"), ("level", "importance_level"), ("low", "importance_low")):
        value, usual = getattr(loss.settings, name), getattr(default, name)
        if value == usual:
            continue
        plain = replace(loss, settings=replace(loss.settings, **{name: usual}))
        others = [_call(plain, one, "off-policy") for one in moved]
        if all(a.value == b.value and torch.equal(a.gradient, b.gradient) for a, b in zip(found, others, strict=True)):
            raise UserError(
                f"algorithm.importance.{key} is {value}, but it does not read settings.{name}; use importance_weights "
                "of rlpost.algorithms.ratios, or remove the setting"
            )


def _each(inputs: LossInputs, change: Any) -> LossInputs:
    given: dict[str, Any] = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
    changed: dict[str, Any] = {name: None if tensor is None else change(tensor) for name, tensor in given.items()}
    return LossInputs(**changed)


def _cut(tensor: Tensor, rows: Sequence[int], width: int) -> Tensor:
    """Rows of a tensor, cut or padded to a width; padding is as in a run."""
    filling = -1 if tensor.dtype == torch.long else 0
    return torch.nn.functional.pad(tensor[list(rows)], (0, width - tensor.shape[1]), value=filling)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor) and value.numel() != 1:
        return False
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False
