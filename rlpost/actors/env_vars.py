"""Environment variables of each kind of actor, set before its process imports anything."""

from __future__ import annotations

COMMON = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    # libgomp's waiting threads otherwise spin, which costs a factor of 3 to 5 where actors share cores
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc otherwise gives each thread its own heap, and these fill one after another: an engine grows by half within
    # fifty adapter updates and then stops, which looks like a leak
    "MALLOC_ARENA_MAX": "2",
}


def rollout(threads: int, gpu: bool) -> dict[str, str]:
    """Variables for a vLLM engine in the process of its actor."""
    env = {
        **COMMON,
        "OMP_NUM_THREADS": str(threads),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if not gpu:
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        # a helper of the sampler is compiled by torch.compile: on CPU that runs g++ at the first request, 3 to 33 s
        env["TORCHDYNAMO_DISABLE"] = "1"
        env["CUDA_VISIBLE_DEVICES"] = ""  # a GPU that the actor was not given
    else:
        # float32 attention is a Triton kernel, which multiplies in TF32 unless told otherwise
        env["TRITON_F32_DEFAULT"] = "ieee"
    return env


def learner(threads: int, gpu: bool, rank: int, world: int, together: bool) -> dict[str, str]:
    """Variables for one data-parallel rank; `LearnerWorker.setup` adds the address of rank 0 once it is known.

    ``together``: all ranks are on one machine and communicate over the loopback interface.
    """
    env = {
        **COMMON,
        "OMP_NUM_THREADS": str(threads),
        "RANK": str(rank),
        "LOCAL_RANK": "0" if gpu else str(rank),
        "WORLD_SIZE": str(world),
    }
    if not gpu:
        env["DS_ACCELERATOR"] = "cpu"
        env["CUDA_VISIBLE_DEVICES"] = ""
    if together:
        env["GLOO_SOCKET_IFNAME"] = "lo"
    return env


def scoring() -> dict[str, str]:
    """Variables for a scoring worker: it computes nothing heavy itself."""
    return {**COMMON, "OMP_NUM_THREADS": "1"}
