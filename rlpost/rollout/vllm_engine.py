"""The vLLM rollout engine, in the process of the actor that holds it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.data.chat import TextCodec
from rlpost.protocols import ApplyReport, GenerateRequest, SamplingSettings
from rlpost.rollout import vllm_compat
from rlpost.rollout.readback import hugging_face_views
from rlpost.sync.codec import checksum, decode
from rlpost.types import Completion, WeightUpdate

_FINISH = {"stop": "stop", "length": "length"}


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


class VllmEngine:
    """`rlpost.protocols.RolloutEngine` on vLLM.

    Every completion is a request of its own with its own seed; vLLM's prefix cache shares the group's prompt.

    Args:
        settings: see `VllmSettings`.
        codec: the model's tokenizer.
        probes: pinned prompts for `probe`, as token ids.
        probe_tokens: greedy tokens per probe.
    """

    def __init__(
        self, settings: VllmSettings, codec: TextCodec, probes: Sequence[tuple[int, ...]] = (), probe_tokens: int = 8
    ):
        vllm_compat.check_version()
        from vllm import LLM

        cpu = vllm_compat.on_cpu()
        if cpu:
            vllm_compat.keep_linear_weights_plain()
        cache_mb = settings.kv_cache_mb or (256 if cpu else None)
        arguments: dict[str, Any] = {
            "model": settings.model,
            "dtype": settings.dtype,
            "max_model_len": settings.max_model_len,
            "kv_cache_memory_bytes": cache_mb * 2**20 if cache_mb else None,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enforce_eager": cpu if settings.enforce_eager is None else settings.enforce_eager,
            "max_num_seqs": settings.max_num_seqs,
            "seed": settings.seed,
            "trust_remote_code": settings.trust_remote_code,
            "enable_prefix_caching": True,
            # the learner scores at the sampling temperature; raw log-probabilities would be those of temperature 1
            "logprobs_mode": "processed_logprobs",
        }
        if cpu:
            arguments |= vllm_compat.cpu_arguments()
        self.llm = LLM(**arguments)
        self.codec = codec
        self.version = -1
        self.held: dict[str, str] = {}
        self._probe_tokens = probe_tokens
        self._probes = [*probes, *self._block_probe(probes, probe_tokens)]
        self._counter = 0
        self._abort = threading.Event()

    def generate(
        self, requests: Sequence[GenerateRequest], settings: SamplingSettings, deadline_s: float | None = None
    ) -> list[Completion]:
        """Sample. What is unfinished at the deadline or on `abort` is returned with finish reason ``abort``.

        Args:
            requests: prompts with their group sizes and seeds.
            settings: how tokens are drawn.
            deadline_s: seconds from now, None for no limit.

        Returns:
            ``n`` completions per request, in order. An aborted one has no tokens: vLLM hands out finished sequences
            only, and a piece of a proof is no proof.
        """
        self._abort.clear()
        slots = [(request, index) for request in requests for index in range(request.n)]
        waiting = {self._submit(request, index, settings): slot for slot, (request, index) in enumerate(slots)}
        outputs: dict[int, Any] = {}
        end = None if deadline_s is None else time.monotonic() + deadline_s
        engine: Any = self.llm.llm_engine
        while waiting:
            if self._abort.is_set() or (end is not None and time.monotonic() > end):
                engine.abort_request(list(waiting))
                break
            for output in engine.step():
                if output.finished and output.request_id in waiting:
                    outputs[waiting.pop(output.request_id)] = output.outputs[0]
        return [
            self._completion(request, index, outputs.get(slot), settings) for slot, (request, index) in enumerate(slots)
        ]

    def abort(self) -> None:
        """End a running `generate` from another thread."""
        self._abort.set()

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Load published tensors in place, drop the prefix cache, and read back what the model now holds.

        Raises:
            RuntimeError: if vLLM refuses to drop its prefix cache (it would go on serving the old policy).
        """
        started = time.perf_counter()
        tensors = [(name, decode(payload)) for name, payload in update.payload.items()]
        shapes = {name: payload.shape for name, payload in update.payload.items()}
        before = self.held or self._read_back(shapes)

        def load(model: Any) -> None:
            model.load_weights(iter(tensors))

        self.llm.apply_model(load)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop its prefix cache: requests are still running")
        self.held = self._read_back(shapes)
        self.version = update.manifest.new_version
        changed = sum(before.get(name) != value for name, value in self.held.items())
        return ApplyReport(self.version, self.held, changed, time.perf_counter() - started)

    def probe(self) -> list[Completion]:
        """Greedy completions of the pinned prompts, with log-probabilities (of the untempered distribution)."""
        requests = [GenerateRequest(f"probe{i}", ids, 1, 0) for i, ids in enumerate(self._probes)]
        return self.generate(requests, SamplingSettings(max_tokens=self._probe_tokens, temperature=0.0))

    def _block_probe(self, probes: Sequence[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
        """A probe longer than a block of the prefix cache, made of the others: vLLM caches whole blocks only, so short
        probes would never be served from a stale one. None where the model's context is shorter than that.
        """
        config = self.llm.llm_engine.vllm_config
        length = int(config.cache_config.block_size) + 1
        ids = [token for probe in probes for token in probe]
        if not ids or length + tokens > int(config.model_config.max_model_len):
            return []
        return [tuple((ids * (length // len(ids) + 1))[:length])]

    def _submit(self, request: GenerateRequest, index: int, settings: SamplingSettings) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._counter += 1
        name = str(self._counter)
        params = SamplingParams(
            n=1,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=settings.max_tokens,
            seed=request.seed + index,
            stop=list(settings.stop) or None,
            logprobs=0 if settings.logprobs else None,
            detokenize=bool(settings.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": list(request.prompt_ids)}, params)
        return name

    def _completion(self, request: GenerateRequest, index: int, output: Any, settings: SamplingSettings) -> Completion:
        ids = tuple(output.token_ids) if output else ()
        reason = _FINISH.get(output.finish_reason, "abort") if output else "abort"
        logprobs = None
        if settings.logprobs:
            rows = output.logprobs if output else ()
            logprobs = tuple(float(row[token].logprob) for row, token in zip(rows, ids, strict=True))
        text, spans = self.codec.decode(ids, settings.stop if reason == "stop" else ())
        return Completion(
            request.prompt_id,
            index,
            request.prompt_ids,
            ids,
            spans,
            logprobs,
            text,
            reason,  # pyright: ignore[reportArgumentType]
            self.version,
            request.seed + index,
        )

    def _read_back(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
        def sums(model: Any) -> dict[str, str]:
            packed = getattr(model, "packed_modules_mapping", {})
            views = hugging_face_views(dict(model.named_parameters()), packed, shapes)
            return {name: "missing" if view is None else checksum(view) for name, view in views.items()}

        return self.llm.apply_model(sums)[0]
