"""Float32 masters of trained parameters that are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

_ENOUGH = 32
"""Bits of a number format that needs no master."""


class Masters:
    """What an optimizer owns of trained parameters: float32 copies of those in bfloat16 or float16, else themselves.

    A bfloat16 weight w is stored in steps of about w / 256. An update of 1e-6 rounds away on every weight above 5e-4,
    unless it is added to a master that keeps it (Micikevicius et al. 2017, arXiv 1710.03740, section 3.1). Gradients of
    micro-batches are summed in float32 too; each one frees the parameter's own.

    Args:
        named: trained parameters by name. Nothing else may write to them afterwards; see `reset`.
    """

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]]):
        self.owned: list[tuple[str, nn.Parameter]] = []
        self._stored: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name, parameter in named:
            owned = parameter
            if torch.finfo(parameter.dtype).bits < _ENOUGH:
                owned = nn.Parameter(parameter.detach().to(torch.float32, copy=True))
                self._stored[name] = parameter, owned
                parameter.register_post_accumulate_grad_hook(_collector(owned))
            self.owned.append((name, owned))

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters into the parameters, after an update."""
        for parameter, master in self._stored.values():
            parameter.copy_(master)

    def state(self) -> dict[str, Tensor]:
        """The masters by name, for a checkpoint."""
        return {name: master.detach() for name, (_, master) in self._stored.items()}

    @torch.no_grad()
    def reset(self, state: Mapping[str, Tensor]) -> None:
        """Take the masters of a checkpoint; those that it lacks take the parameters' values.

        Raises:
            RuntimeError: for a master of another shape.
        """
        for name, (parameter, master) in self._stored.items():
            master.copy_(state.get(name, parameter))


def _collector(master: nn.Parameter) -> Callable[[Tensor], None]:
    """A hook that adds a parameter's gradient to its master's and frees it."""

    @torch.no_grad()
    def collect(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.to(torch.float32)
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        parameter.grad = None

    return collect
