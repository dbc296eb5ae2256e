"""Which share of what an optimizer owns an update moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SAMPLE = 65_536
"""Entries that are looked at, over all tensors of a rank."""
_VISIBLE = 2.0**-23
"""An addition of more than this share of a float32 number changes it."""
_SHARE = 0.01
"""Share of the learning rate that an optimizer other than Adam is taken to move an entry by, at least."""
_EXACT = 1e-3
"""Largest difference of an entry's step from AdamW's, as a share of it; implementations round differently."""
_ALIKE = 0.9
"""Least cosine between a gradient and what it adds to the first moment; clipping changes the length alone."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A float32 tensor that an optimizer updates in place, with its state and its parameter group.

    Attributes:
        values: the tensor.
        state: what the optimizer remembers of it.
        group: its settings.
        collects: whether its ``grad`` is the whole gradient before an update, and nothing after it. DeepSpeed's flat
            partitions get theirs inside the update, and may keep it.

    >>> Owned(torch.zeros(2), {}, {"lr": 1e-6}).values.shape
    torch.Size([2])
    """

    values: Tensor
    state: Mapping[str, Any]
    group: Mapping[str, Any]
    collects: bool = False

    @property
    def gradient(self) -> Tensor | None:
        """The gradient collected so far; None if there is none, or it is elsewhere."""
        return self.values.grad if self.collects else None


def owned_by(optimizer: Any, collects: bool = False) -> list[Owned]:
    """What a torch optimizer, or a `rlpost.optim.chained.ChainedOptimizer`, owns; ``collects`` as of `Owned`."""
    return [
        Owned(values, part.state.get(values, {}), group, collects)
        for part in getattr(optimizer, "parts", [optimizer])
        for group in part.param_groups
        for values in group["params"]
    ]


class MovementSample:
    """A strided sample of what an optimizer owns, taken before an update.

    Args:
        owned: everything that this rank's optimizer owns.
    """

    def __init__(self, owned: Sequence[Owned]):
        # an odd stride does not stay in one column of a matrix
        self._stride = -(-sum(one.values.numel() for one in owned) // SAMPLE) | 1
        self._before = [self._of(one.values).clone() for one in owned]
        self._fresh = [not one.state for one in owned]
        gradients = [one.gradient for one in owned]
        self._gradients = [None if gradient is None else self._of(gradient).clone() for gradient in gradients]
        moments = [one.state.get("exp_avg") for one in owned]
        self._moments = [None if moment is None else self._of(moment).clone() for moment in moments]

    def moved(self, owned: Sequence[Owned]) -> tuple[int, int]:
        """Number of sampled entries that the update had to move, and of those among them that moved.

        An entry had to move if the optimizer's state for it is not zero and its step is visible in float32: for Adam
        the step η m̂ / (√v̂ + ε), for others 1 % of the rate η, except in their first update, which may only set up
        their state. So masked entries, words that did not occur, and the last rates of a decay (a cosine's are below
        1e-11) do not count.

        Args:
            owned: the same as before, with the state that it has now.
        """
        rows: dict[tuple[_Rule, torch.device], list[tuple[Tensor, ...]]] = {}
        for before, fresh, one in zip(self._before, self._fresh, owned, strict=True):
            rule, moments = _rule(one, fresh)
            if rule is not None:
                columns = (before, *map(self._of, (one.values, *moments)))
                rows.setdefault((rule, before.device), []).append(columns)
        wanted = moved = 0
        for (rule, _), found in rows.items():
            before, now, *moments = (torch.cat(column) for column in zip(*found, strict=True))
            due = rule.step(moments, before) > before.abs() * _VISIBLE
            counts = torch.stack([due.sum(), (due & (now != before)).sum()]).tolist()
            wanted, moved = wanted + counts[0], moved + counts[1]
        return wanted, moved

    def adamw_error(self, owned: Sequence[Owned], rate: float) -> str | None:
        """What an update by AdamW did otherwise than its formula says, in words; None if nothing.

        θ moves to θ (1 - η λ) - η m̂ / (√v̂ + ε) (Loshchilov & Hutter 2019, algorithm 2), with the learning rate that
        was asked for, and the gradient, where it is known, is what is added to the first moment.

        Args:
            owned: the same as before, with the state that it has now.
            rate: the learning rate η that was asked for; LoRA+ multiplies it by a group's ``lr_ratio``.
        """
        inner = own = added = largest = 0.0
        rows = zip(self._before, self._gradients, self._moments, owned, strict=True)
        for before, gradient, moment, one in rows:
            if "exp_avg" not in one.state:
                if gradient is not None and bool(gradient.any()):
                    return f"a tensor of {one.values.numel()} entries has a gradient, and the optimizer left it out"
                continue
            said = self._misplaced(before, one, rate * one.group.get("lr_ratio", 1.0))
            if said is not None:
                return said
            if gradient is not None:
                now = self._of(one.state["exp_avg"]).double()
                old = torch.zeros_like(now) if moment is None else moment.double()
                change, gradient = now - one.group["betas"][0] * old, gradient.double()
                inner, own = inner + float(change @ gradient), own + float(gradient @ gradient)
                added, largest = added + float(change @ change), max(largest, float(old.norm()))
        # float32 moments do not show a gradient that is tiny next to them
        visible = own > 0 and math.sqrt(added) > 1e-4 * largest
        if visible and not inner >= _ALIKE * math.sqrt(own * added):
            cosine = inner / math.sqrt(own * added)
            return f"the optimizer took in another direction than the gradient's (cosine {cosine:.3g})"
        return None

    def _misplaced(self, before: Tensor, one: Owned, rate: float) -> str | None:
        """Where a tensor is not where AdamW moves it; None if it is."""
        (first, second), age = one.group["betas"], float(one.state["step"])
        mean, square = self._of(one.state["exp_avg"]), self._of(one.state["exp_avg_sq"])
        step = mean / (1 - first**age) / ((square / (1 - second**age)).sqrt() + one.group["eps"]) * rate
        expected = before * (1 - rate * one.group["weight_decay"]) - step
        apart = (self._of(one.values) - expected).abs()
        wrong = ~(apart <= _EXACT * step.abs() + 4 * _VISIBLE * before.abs())
        if not bool(wrong.any()):
            return None
        place = int(apart.masked_fill(~wrong, -1.0).argmax())
        return (
            f"an entry moved by {float((self._of(one.values) - before)[place]):.3g}, and AdamW moves it by "
            f"{float((expected - before)[place]):.3g} at the learning rate {rate:.3g}"
        )

    def _of(self, tensor: Tensor) -> Tensor:
        return tensor.detach().reshape(-1)[:: self._stride]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How the size of a step follows from the moments: Adam's, or a share of the rate where a moment is not zero."""

    rate: float
    moments: int
    adam: tuple[float, float, float, float] | None = None

    def step(self, moments: Sequence[Tensor], like: Tensor) -> Tensor:
        if self.adam is not None:
            first, second, eps, age = self.adam
            root = moments[1].sqrt() / math.sqrt(1 - second**age) + eps
            return moments[0].abs() / root * (self.rate / (1 - first**age))
        alive = torch.stack([moment != 0 for moment in moments]).any(0) if moments else torch.ones_like(like)
        return alive * (_SHARE * self.rate)


def _rule(one: Owned, fresh: bool) -> tuple[_Rule | None, list[Tensor]]:
    """The rule of a tensor and the moments that it reads; None if nothing can be expected of it."""
    state, group = one.state, one.group
    kept = {
        key: value
        for key, value in state.items()
        if isinstance(value, Tensor) and value.shape == one.values.shape and value.is_floating_point()
    }
    if {"exp_avg", "exp_avg_sq"} <= kept.keys() and "step" in state and {"betas", "eps"} <= group.keys():
        adam = (*group["betas"], group["eps"], float(state["step"]))
        return _Rule(group["lr"], 2, adam), [kept["exp_avg"], kept["exp_avg_sq"]]
    if fresh or not state:
        return None, []
    return _Rule(group["lr"], len(kept)), list(kept.values())
