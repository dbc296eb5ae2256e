r"""LoRA-XS and LoRA-SB: W + s B R A, of which only the r × r matrix R is trained.

LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604): with W = U S Vᵀ, B = U_r, A = S_r V_rᵀ, R = 0. LoRA-SB (Ponkshe et al.
2024, arXiv 2411.19557): with −η sign(Σ ∇W) = U S Vᵀ, the first step of a full update, B = U_r, A = V_rᵀ, R = S_r / s,
so that s B R A is that step's best approximation of rank r. In both, B and A are orthonormal up to a diagonal, and the
adapter sent to engines is the plain pair B, R A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlpost.config.tuning import LoraXsSettings
from rlpost.tuning.lora import Lora, plain_settings
from rlpost.tuning.peft_methods import NAME


class Core(nn.Module):
    """Replaces LoRA's A by R A, with A frozen.

    Args:
        basis: A ``[r, in]``.
        core: R ``[r, r]``.
    """

    def __init__(self, basis: Tensor, core: Tensor):
        super().__init__()
        self.basis: Tensor
        self.register_buffer("basis", basis)
        self.core = nn.Parameter(core)

    @property
    def weight(self) -> Tensor:
        """R A ``[r, in]``, which PEFT reads to merge and to cast."""
        return self.core @ self.basis

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[..., in]`` to ``[..., r]``."""
        return (x @ self.basis.T) @ self.core.T


class LoraXs(Lora):
    """LoRA-XS, or LoRA-SB once gradients are known.

    Args:
        model: a Hugging Face causal language model; changed in place.
        settings: rank, scale, targets and initialisation.
    """

    def __init__(self, model: nn.Module, settings: LoraXsSettings):
        super().__init__(model, plain_settings(settings), "tuning.lora_xs")
        self.settings, self.waiting = settings, settings.init == "gradient"
        for _, layer in self.layers():
            u, s, v = _svd(_out_in(layer, layer.get_base_layer().weight), layer.r[NAME])
            self._place(layer, s.diag() @ v, torch.zeros(len(s), len(s)), u)

    def warmup_parameters(self) -> dict[str, nn.Parameter]:
        """See `TuningMethod`: the frozen weights of the adapted layers."""
        return {name: layer.get_base_layer().weight for name, layer in self.layers()} if self.waiting else {}

    def finish_warmup(self, scores: Mapping[str, Tensor]) -> None:
        """See `TuningMethod`; the scores are sums of signed gradients."""
        for name, layer in self.layers():
            step = -self.settings.init_lr * scores[name].sign()
            u, s, v = _svd(_out_in(layer, step), layer.r[NAME])
            self._place(layer, v, s.diag() / layer.scaling[NAME], u)
        self.waiting = False

    def state(self) -> dict[str, Any]:
        """See `TuningMethod`."""
        return {**super().state(), "waiting": self.waiting}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TuningMethod`; bases and core are part of the model's own state."""
        super().restore(state)
        self.waiting = state["waiting"]

    @torch.no_grad()
    def _place(self, layer: Any, a: Tensor, core: Tensor, b: Tensor) -> None:
        target = layer.lora_B[NAME].weight
        target.copy_(b)
        target.requires_grad_(False)
        held = layer.lora_A[NAME]
        if isinstance(held, Core):  # the optimizer may own its parameter already
            held.basis.copy_(a)
            held.core.copy_(core)
        else:
            layer.lora_A[NAME] = Core(a.to(target), core.to(target))


def _out_in(layer: Any, matrix: Tensor) -> Tensor:
    """A layer's matrix as ``[out, in]``; GPT-2 stores it as ``[in, out]``."""
    return matrix.T if layer.fan_in_fan_out else matrix


def _svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U ``[out, r]``, S ``[r]``, Vᵀ ``[r, in]`` of the largest singular values."""
    u, s, v = torch.linalg.svd(matrix.detach().float(), full_matrices=False)
    return u[:, :rank], s[:rank], v[:rank]
