"""Starting vLLM: our settings as its arguments, and what has to be in place before it loads a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlpost.rollout.vllm import compat, packed_linear, worker
from rlpost.rollout.vllm.weights import LocalWeights, ShardedWeights, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """What the engine is built with.

    Attributes:
        model: Hugging Face folder.
        dtype: ``float32`` or ``bfloat16``.
        max_model_len: longest sequence, None for the model's own.
        kv_cache_mb: key/value cache in MiB, None for 256 on CPU and a share of the card on GPU.
        gpu_memory_utilization: that share.
        enforce_eager: without torch.compile and CUDA graphs; None: on CPU yes, on GPU no.
        max_num_seqs: completions that run at once.
        seed: of the engine; samples carry their own.
        trust_remote_code: run code found in the folder.
        packed_weights: on CPU and without torch.compile, multiply with vLLM's packed kernels; see `packing_cpu`.
        adapter_rank: largest rank of the LoRA adapters it will be sent; None for none.
        tensor_parallel: processes of this machine that share the layers; with 1 the engine runs in this process.
    """

    model: str
    dtype: str
    max_model_len: int | None = None
    kv_cache_mb: int | None = None
    gpu_memory_utilization: float = 0.4
    enforce_eager: bool | None = None
    max_num_seqs: int = 256
    seed: int = 0
    trust_remote_code: bool = False
    packed_weights: bool = True
    adapter_rank: int | None = None
    tensor_parallel: int = 1


def load(settings: VllmSettings) -> tuple[Any, Weights]:
    """``vllm.LLM`` with the model loaded, and access to its weights.

    With tensor parallelism vLLM starts worker processes; they end with this one.

    Raises:
        MissingPackageError: if vLLM is absent, too old, or has moved what is replaced on CPU.
        ValueError: if the model cannot be shared by so many processes, or vLLM has no kernels for its adapters.
    """
    compat.check_version()
    cpu, shards = compat.on_cpu(), settings.tensor_parallel
    compat.check_shards(settings.model, shards, settings.trust_remote_code)
    compat.check_adapters(settings.dtype, settings.adapter_rank, cpu)
    compat.tolerate_numba()
    from vllm import LLM

    llm = LLM(**_arguments(settings, cpu))
    if shards == 1:
        compat.check_in_process(llm)
    if cpu and shards > 1:
        llm.apply_model(worker.unlink_shared_memory)
    return llm, LocalWeights(llm) if shards == 1 else ShardedWeights(llm, shards)


def _arguments(settings: VllmSettings, cpu: bool) -> dict[str, Any]:
    cache_mb = settings.kv_cache_mb or (256 if cpu else None)
    eager = cpu if settings.enforce_eager is None else settings.enforce_eager
    found: dict[str, Any] = {
        "model": settings.model,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "kv_cache_memory_bytes": cache_mb * 2**20 if cache_mb else None,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enforce_eager": eager,
        "max_num_seqs": settings.max_num_seqs,
        "seed": settings.seed,
        "trust_remote_code": settings.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel,
        "enable_prefix_caching": True,
        # the learner scores at the sampling temperature; raw log-probabilities would be those of temperature 1
        "logprobs_mode": "processed_logprobs",
    }
    if settings.adapter_rank:
        found |= {"enable_lora": True, "max_lora_rank": settings.adapter_rank, "max_loras": 1, "max_cpu_loras": 1}
    # compiled code would go on calling the kernels it was traced with
    packed = settings.packed_weights and eager if cpu else None
    if settings.tensor_parallel > 1:
        found |= worker.arguments(packed)
    elif packed is not None:
        packed_linear.install(packed)
    return found | compat.cpu_arguments() if cpu else found
