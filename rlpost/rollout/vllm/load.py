"""Start vLLM: settings as its engine arguments, and the preparation it needs before it loads a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlpost.decoding import DecodingConstraint
from rlpost.rollout.vllm import compat, packed_linear, vocabulary, worker
from rlpost.rollout.vllm.weights import LocalWeights, ShardedWeights, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """Settings of a vLLM engine.

    Attributes:
        model: Hugging Face folder.
        dtype: ``float32`` or ``bfloat16``.
        max_model_len: longest sequence in tokens; None for the model's own limit.
        kv_cache_mb: KV cache in MiB; None means 256 on CPU, and on GPU what ``gpu_memory_utilization`` leaves.
        gpu_memory_utilization: share of a GPU's memory that the engine may use, in (0, 1].
        enforce_eager: run without torch.compile and CUDA graphs; None means True on CPU, False on GPU.
        max_num_seqs: number of completions that may run at once.
        seed: the engine's seed; samples have their own.
        trust_remote_code: run code found in the folder.
        packed_weights: multiply with vLLM's packed kernels, on CPU and without torch.compile only; see
            `rlpost.rollout.vllm.packed_linear`.
        adapter_rank: largest rank of the LoRA adapters that the engine will receive; None for no adapters.
        tensor_parallel: number of processes of this machine that shard the layers; with 1 the engine runs in this
            process.
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


def load(settings: VllmSettings, constraint: DecodingConstraint | None = None) -> tuple[Any, Weights]:
    """``vllm.LLM`` with the model loaded, and access to its weights.

    Requests that ask for it are sampled under ``constraint``; see `rlpost.rollout.vllm.constrained`.

    With tensor parallelism vLLM starts worker processes; they end with this one.

    Raises:
        MissingPackageError: if vLLM is absent, too old, or lacks the function that is replaced on CPU.
        ValueError: if the model cannot be sharded over so many processes, or vLLM has no kernels for its adapters.
    """
    compat.check_version()
    cpu, shards = compat.on_cpu(), settings.tensor_parallel
    compat.check_shards(settings.model, shards, settings.trust_remote_code)
    compat.check_adapters(settings.dtype, settings.adapter_rank, cpu)
    compat.tolerate_numba()
    from vllm import LLM

    from rlpost.rollout.vllm import constrained

    with constrained.engine_arguments(constraint, shards == 1) as more:
        llm = LLM(**engine_arguments(settings, cpu), **more)
    if shards == 1:
        compat.check_in_process(llm)
    vocabulary.exclude_missing(llm, settings.model, settings.trust_remote_code)
    if cpu and shards > 1:
        llm.apply_model(worker.unlink_shared_memory)
    return llm, LocalWeights(llm) if shards == 1 else ShardedWeights(llm, shards)


def engine_arguments(settings: VllmSettings, cpu: bool) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` and of its ``EngineArgs``."""
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
        # otherwise on by default on GPU: a step that is computed under the old weights would be handed out after a sync
        "async_scheduling": False,
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
