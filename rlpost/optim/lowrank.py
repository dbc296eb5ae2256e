r"""AdamW on a projection of each matrix's gradient: GaLore, Fira, FRUGAL, AdaRankGrad, APOLLO as settings of one step.

The shorter side of a gradient G ``[m, n]`` is projected: with Q ``[n, r]`` to R = G Q where m ≥ n, else with Q
``[m, r]`` to R = Qᵀ G. Q is renewed every ``gap`` updates. Adam's moments are those of R, and N is Adam's direction
m / (√v + ε) with bias correction in the step size η √(1 − β₂ᵗ) / (1 − β₁ᵗ). The presets make the step from N:

- ``galore`` (Zhao et al. 2024, arXiv 2403.03507, algorithm 2): Q has singular vectors of G; the step is α N Qᵀ.
- ``fira`` (Chen et al. 2024, arXiv 2410.01623): as GaLore, plus the residual E = G − R Qᵀ scaled by ‖N‖ / ‖R‖ of each
  column (or row), with a limit on the growth of its norm.
- ``frugal`` (Zmushko et al. 2024, arXiv 2411.07837): as GaLore with α = 1, and − η c sign(E); moments are reset with
  each new Q.
- ``adarankgrad`` (Refael et al. 2024, arXiv 2410.17881): as GaLore with α = 1 and the smallest rank that holds a share
  of ‖G‖²; moments are carried over into the new basis.
- ``apollo`` (Zhu et al. 2024, arXiv 2412.05270): Q is random, and the step is G itself scaled by ‖N‖ / ‖R‖ of each
  column (or row) and √α, with the same limit.

The optimizer state is tensors and numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

_TINY = 1e-8
_GROWTH = 1.01
"""Largest growth of a scaled gradient's norm from one update to the next (Fira, APOLLO)."""
_LEAST_RANK = 4


@dataclass(frozen=True, slots=True)
class Projection:
    """How gradients are projected and how the residual E outside the projection is used.

    Attributes:
        rank: rank r of the projection; with ``energy`` the largest one.
        gap: optimizer updates between new projections.
        basis: ``svd`` for singular vectors of the gradient, or ``random``.
        rest: use of the residual: ``none``, ``scaled`` by the gain of the projected part, or its ``sign``.
        scale: factor α of the step.
        rest_scale: factor c of the residual's sign.
        energy: share of the gradient's squared norm that the projection must hold; None: always use ``rank``.
        reset: reset the moments with each new basis.
    """

    rank: int
    gap: int = 200
    basis: Literal["svd", "random"] = "svd"
    rest: Literal["none", "scaled", "sign"] = "none"
    scale: float = 1.0
    rest_scale: float = 1.0
    energy: float | None = None
    reset: bool = False


PRESETS: dict[str, Projection] = {
    "galore": Projection(128, scale=0.25),
    "fira": Projection(128, rest="scaled"),
    "frugal": Projection(128, rest="sign", reset=True),
    "adarankgrad": Projection(128, energy=0.99),
    "apollo": Projection(128, basis="random"),
}


def preset(name: str, **given: Any) -> Projection:
    """A preset, in which every given value that is not None replaces the preset's."""
    return replace(PRESETS[name], **{key: value for key, value in given.items() if value is not None})


class LowRankAdamW(torch.optim.Optimizer):
    """AdamW whose parameter groups may have a ``projection``.

    Args:
        params: parameters or groups; a group's ``projection`` is a `Projection`, None or absent for plain AdamW.
        lr: learning rate η.
        betas: decay rates of the two moments.
        eps: ε added to the root of the second moment.
        weight_decay: decoupled weight decay, applied to the weights after the step.
        seed: seed of the random bases.

    Raises:
        ValueError: for a projected parameter that is not a matrix, as after ZeRO has flattened it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        seed: int = 0,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "projection": None}
        super().__init__(params, defaults)
        self.seed = seed
        for group in self.param_groups:
            for parameter in group["params"] if group["projection"] else ():
                if parameter.dim() != 2:
                    raise ValueError(
                        f"a projected parameter has {parameter.dim()} dimension(s); low-rank groups need matrices, "
                        "which ZeRO stages 1 to 3 flatten"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update."""
        loss = None if closure is None else closure()
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                number += 1
                if parameter.grad is not None:
                    self._update(parameter, group, number)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state as torch's optimizers give it, without the projections, which are settings."""
        found = super().state_dict()
        groups = [{k: v for k, v in group.items() if k != "projection"} for group in found["param_groups"]]
        return {**found, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as torch's optimizers do; the projections keep their values."""
        kept = [group["projection"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, projection in zip(self.param_groups, kept, strict=True):
            group["projection"] = projection

    def _update(self, parameter: Tensor, group: dict[str, Any], number: int) -> None:
        gradient: Tensor = parameter.grad  # pyright: ignore[reportAssignmentType]
        state, projection = self.state[parameter], group["projection"]
        if not state:
            state["step"] = 0
        if projection is not None and state["step"] % projection.gap == 0:
            _renew(state, gradient, projection, self.seed + state["step"] + number * 100_003)
        seen = gradient if projection is None else _project(gradient, state["basis"])
        direction, rate = _adam(state, seen, group)
        if projection is None:
            parameter.add_(direction, alpha=-rate)
        else:
            parameter.add_(_back(direction, gradient, seen, state, projection), alpha=-rate)
            if projection.rest == "sign":
                rest = gradient - _unproject(seen, state["basis"], gradient)
                parameter.add_(rest.sign(), alpha=-group["lr"] * projection.rest_scale)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])


def _adam(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> tuple[Tensor, float]:
    """Adam's direction, and the step size with bias correction."""
    first, second = group["betas"]
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    state["step"] += 1
    state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    direction = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
    age = state["step"]
    return direction, group["lr"] * math.sqrt(1 - second**age) / (1 - first**age)


def _right(gradient: Tensor) -> bool:
    """Whether columns are projected."""
    return gradient.shape[0] >= gradient.shape[1]


def _project(gradient: Tensor, basis: Tensor) -> Tensor:
    return gradient @ basis if _right(gradient) else basis.T @ gradient


def _unproject(low: Tensor, basis: Tensor, gradient: Tensor) -> Tensor:
    return low @ basis.T if _right(gradient) else basis @ low


def _back(direction: Tensor, gradient: Tensor, seen: Tensor, state: dict[str, Any], projection: Projection) -> Tensor:
    """The step in the matrix's own shape."""
    dim = 1 if _right(gradient) else 0
    gain = direction.norm(dim=dim, keepdim=True) / (seen.norm(dim=dim, keepdim=True) + _TINY)
    if projection.basis == "random":
        return _limited(gradient * gain, state) * math.sqrt(projection.scale)
    step = _unproject(direction, state["basis"], gradient) * projection.scale
    if projection.rest == "scaled":
        rest = gradient - _unproject(seen, state["basis"], gradient)
        step = step + _limited(rest * gain, state)
    return step


def _limited(scaled: Tensor, state: dict[str, Any]) -> Tensor:
    """A scaled gradient whose norm grows by no more than `_GROWTH`."""
    norm = scaled.norm()
    if "norm" in state:
        factor = torch.clamp(norm / (state["norm"] + _TINY), min=_GROWTH) / _GROWTH
        scaled, norm = scaled / factor, norm / factor
    state["norm"] = norm
    return scaled


def _renew(state: dict[str, Any], gradient: Tensor, projection: Projection, seed: int) -> None:
    """Make a new basis, and reset the moments or rotate them into it where the projection says so."""
    old, basis = state.get("basis"), _basis(gradient, projection, seed)
    state["basis"] = basis
    if old is None or "exp_avg" not in state:
        return
    if projection.reset:
        del state["exp_avg"], state["exp_avg_sq"]
    elif projection.energy is not None:
        turn = basis.T @ old  # [new, old]
        if _right(gradient):
            state["exp_avg"], state["exp_avg_sq"] = state["exp_avg"] @ turn.T, state["exp_avg_sq"] @ (turn.T**2)
        else:
            state["exp_avg"], state["exp_avg_sq"] = turn @ state["exp_avg"], (turn**2) @ state["exp_avg_sq"]


def _basis(gradient: Tensor, projection: Projection, seed: int) -> Tensor:
    """Q ``[shorter side, r]``."""
    right, rank = _right(gradient), min(projection.rank, *gradient.shape)
    if projection.basis == "random":
        source = torch.Generator(device="cpu").manual_seed(seed)
        side = gradient.shape[1] if right else gradient.shape[0]
        return (torch.randn(side, rank, generator=source) / math.sqrt(rank)).to(gradient)
    u, s, v = torch.linalg.svd(gradient.float(), full_matrices=False)
    if projection.energy is not None:
        held = (s**2).cumsum(0) / (s**2).sum().clamp_min(torch.finfo(s.dtype).tiny)
        rank = max(min(rank, int((held < projection.energy).sum()) + 1), min(_LEAST_RANK, rank))
    return (v[:rank].T if right else u[:, :rank]).contiguous().to(gradient)
