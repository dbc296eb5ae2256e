"""Whether vLLM can serve a model, found from the model's configuration without loading weights or starting an engine.

Runs as a process of its own, because importing vLLM takes seconds and patches what it imports: reads an `Asked` as JSON
on standard input, writes a list of reasons as the last line of standard output.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlpost.errors import RlpostError, first_line
from rlpost.rollout.vllm import compat
from rlpost.rollout.vllm.load import VllmSettings, engine_arguments
from rlpost.rollout.vllm.readback import hugging_face_views

_FEW = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """The question: settings of an engine, and names and shapes of what will be published to it.

    Attributes:
        settings: fields of `rlpost.rollout.vllm.load.VllmSettings`.
        shapes: published names and shapes; empty where only adapters are published.
    """

    settings: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def reasons(asked: Asked) -> Iterator[str]:
    """Why vLLM cannot serve a run, each with the setting to change; none if it can.

    Asked are vLLM's own checks of a configuration, its registry of architectures, the head sizes of its CPU attention
    (which refuses others only at the first request), and whether the published tensors have a place in its model.
    """
    settings = VllmSettings(**asked.settings)
    try:
        compat.check_version()
        compat.check_shards(settings.model, settings.tensor_parallel, settings.trust_remote_code)
        compat.check_adapters(settings.dtype, settings.adapter_rank, compat.on_cpu())
        from vllm.engine.arg_utils import EngineArgs

        # processes of tensor parallelism are not started, so the model is looked at as a whole
        whole = dataclasses.replace(settings, tensor_parallel=1)
        config = EngineArgs(**engine_arguments(whole, compat.on_cpu())).create_engine_config()
    except (RlpostError, ValueError, RuntimeError, TypeError, OSError, NotImplementedError) as error:
        yield f"model.path: vLLM refuses {settings.model} ({reason(error)}); train another model"
        return
    sizes, size = _head_sizes(), config.model_config.get_head_size()
    if sizes and not config.model_config.use_mla and size not in sizes:
        yield (
            f"model.path: heads of size {size}, vLLM's attention on CPU serves {', '.join(map(str, sizes))}; train "
            "another model, or run on a GPU"
        )
    yield from _reasons_of_model(config, settings, asked.shapes)


def _reasons_of_model(config: Any, settings: VllmSettings, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    try:
        with _one_rank(config):
            from vllm.model_executor.model_loader.utils import initialize_model
            from vllm.model_executor.models import supports_lora

            with torch.device("meta"):
                model: Any = initialize_model(config)
            adapted = supports_lora(model)
    except ValueError as error:  # how vLLM refuses
        yield f"model.path: vLLM cannot build {settings.model} ({reason(error)}); train another model"
        return
    except (RuntimeError, TypeError, AssertionError, NotImplementedError, KeyError, AttributeError) as error:
        # layers that need memory when they are made: only the engine itself can tell
        print(f"not decided without an engine: {reason(error)}", file=sys.stderr)
        return
    if settings.adapter_rank and not adapted:
        yield "sync.kind: vLLM has no adapters for this architecture; use full"
    views = hugging_face_views(dict(model.named_parameters()), getattr(model, "packed_modules_mapping", {}), shapes)
    lost = [name for name, view in views.items() if view is None]
    if lost:
        yield (
            f"model.path: {len(lost)} of {len(shapes)} tensors would not be found again in vLLM's model "
            f"({', '.join(lost[:_FEW])}{', …' if len(lost) > _FEW else ''}), so nothing would show whether updates "
            "arrive; rlpost does not train this architecture"
        )


def reason(error: BaseException) -> str:
    r"""What an error of vLLM says, without pydantic's frame around it and without lists of everything there is.

    >>> reason(ValueError("1 validation error for ModelConfig\n  Value error, too old [type=value_error]"))
    'too old'
    """
    text = re.sub(r"^\d+ validation errors? for \w+\s*(\w+\s+)?Value error, ", "", first_line(error))
    return re.split(r" \[type=|\.? Supported architectures:", text)[0]


def _head_sizes() -> list[int]:
    """Head sizes of vLLM's attention on CPU; empty on GPU, where vLLM chooses a backend that fits."""
    if not compat.on_cpu():
        return []
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return list(CPUAttentionBackend.get_supported_head_sizes())


@contextlib.contextmanager
def _one_rank(config: Any) -> Iterator[None]:
    """vLLM's process groups of a single rank, which its layers ask for when they are made."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state

    with tempfile.TemporaryDirectory() as folder, set_current_vllm_config(config):
        parallel_state.init_distributed_environment(1, 0, f"file://{folder}/store", 0, "gloo")
        parallel_state.ensure_model_parallel_initialized(1, 1)
        yield


def main() -> None:
    """Answer the question on standard input."""
    asked = json.loads(sys.stdin.read())
    with contextlib.redirect_stdout(sys.stderr):
        found = list(reasons(Asked(asked["settings"], {n: tuple(s) for n, s in asked["shapes"].items()})))
    print(json.dumps(found), flush=True)


def question(settings: VllmSettings, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """An `Asked` as JSON."""
    return json.dumps({"settings": dataclasses.asdict(settings), "shapes": shapes})


if __name__ == "__main__":
    main()
