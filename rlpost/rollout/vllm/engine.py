"""The vLLM rollout engine, run in the process of its actor."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from rlpost.config.schema import RunConfig
from rlpost.config.update_kind import engine_rank
from rlpost.data.tokenizer import TextCodec
from rlpost.protocols import ApplyReport, EngineSpec, GenerateRequest, SamplingSettings
from rlpost.rollout.stream import generate
from rlpost.rollout.vllm.load import VllmSettings, load
from rlpost.rollout.vllm.lora import ActiveAdapter, parse
from rlpost.rollout.vllm.weights import shared_folder
from rlpost.sync.codec import decode
from rlpost.types import Completion, WeightUpdate

_FINISH = {"stop": "stop", "length": "length"}


def build_engine(config: RunConfig, spec: EngineSpec) -> VllmEngine:
    """The engine of a configuration; ``rollout.engine: vllm`` names this function."""
    rollout = config.rollout
    settings = VllmSettings(
        model=spec.model,
        dtype=config.model.dtype,
        max_model_len=rollout.max_model_len or spec.max_model_len,
        kv_cache_mb=rollout.kv_cache_mb,
        gpu_memory_utilization=rollout.gpu_memory_utilization,
        enforce_eager=rollout.enforce_eager,
        max_num_seqs=spec.max_num_seqs,
        seed=config.run.seed,
        trust_remote_code=config.model.trust_remote_code,
        packed_weights=rollout.packed_weights,
        adapter_rank=engine_rank(config),
        tensor_parallel=rollout.tensor_parallel,
    )
    codec = TextCodec(spec.model, config.model.trust_remote_code)
    return VllmEngine(settings, codec, spec.probes, config.selfcheck.probe_tokens)


class VllmEngine:
    """`rlpost.protocols.RolloutEngine` on vLLM.

    Every completion is a separate request with its own seed; vLLM's prefix cache shares the group's prompt.

    Args:
        settings: model folder, dtype, memory and parallelism of the engine.
        codec: the model's tokenizer.
        probes: pinned prompts for `probe`, as token ids.
        probe_tokens: number of greedy tokens per probe.
    """

    def __init__(
        self, settings: VllmSettings, codec: TextCodec, probes: Sequence[tuple[int, ...]] = (), probe_tokens: int = 8
    ):
        self.llm, self.weights = load(settings)
        self.codec, self.model = codec, settings.model
        self.adapter = ActiveAdapter(self.llm) if settings.adapter_rank else None
        self.index: dict[str, Tensor] = {}
        self.version = -1
        self.held: dict[str, str] = {}
        self._probe_tokens = probe_tokens
        self._probes = [*probes, *self._block_probe(probes, probe_tokens)]
        self._requests = self._counter = 0
        self._running: dict[str, tuple[int, GenerateRequest, int, SamplingSettings]] = {}

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """See `RolloutEngine`."""
        numbers: list[int] = []
        for request in requests:
            self._requests += 1
            numbers.append(self._requests)
            for index in range(request.n):
                self._running[self._add(request, index, settings)] = self._requests, request, index, settings
        return numbers

    def step(self) -> list[tuple[int, Completion]]:
        """See `RolloutEngine`."""
        engine: Any = self.llm.llm_engine
        ended: list[tuple[int, Completion]] = []
        for output in engine.step():
            if output.finished and output.request_id in self._running:
                number, request, index, settings = self._running.pop(output.request_id)
                ended.append((number, self._completion(request, index, settings, output.outputs[0])))
        return ended

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """See `RolloutEngine`.

        An aborted completion has no tokens: vLLM returns finished sequences only, and part of a proof is not a proof.
        """
        names = [name for name, (number, *_) in self._running.items() if number in numbers]
        self.llm.llm_engine.abort_request(names)
        ended: list[tuple[int, Completion]] = []
        for name in names:
            number, request, index, settings = self._running.pop(name)
            ended.append((number, self._completion(request, index, settings, None)))
        return ended

    def close(self) -> None:
        """End vLLM's worker processes, if there are any, and free what they share."""
        self.llm.llm_engine.engine_core.shutdown()

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Load an update into the model, drop the prefix cache, and read back what the model now holds.

        Raises:
            RuntimeError: if vLLM refuses to drop its prefix cache (it would go on serving the old policy), or the
                update builds on one that this engine never received.
        """
        started = time.perf_counter()
        shapes = update.manifest.shapes
        before = self.held or self.weights.checksums(shapes)
        self._take(update)
        self._drop_cache()
        self.held = self.weights.checksums(shapes)
        self.version = update.manifest.new_version
        changed = sum(before.get(name) != value for name, value in self.held.items())
        return ApplyReport(self.version, self.held, changed, time.perf_counter() - started)

    def _take(self, update: WeightUpdate) -> None:
        """Load an update of any kind into the model."""
        tensors = {name: decode(payload) for name, payload in update.payload.items()}
        if update.manifest.kind == "adapter":
            if self.adapter is None:
                raise RuntimeError("an adapter was published, but this engine was started without adapters")
            with shared_folder() as folder:
                self.adapter.replace(parse(tensors), folder, self.model)
            return
        positions = {name: decode(payload) for name, payload in update.index.items()}
        if update.manifest.kind == "values":
            # kept as int64, which index_copy_ needs: converting 13 million int32 takes as long as the copy itself
            self.index |= {name: index.to(torch.long, copy=True) for name, index in positions.items()}
            unknown = tensors.keys() - self.index.keys()
            if unknown:
                raise RuntimeError(f"values of {min(unknown)!r} without positions: the declaration was never received")
            positions = self.index
        else:
            self.index = {}
        whole = {name: tensor for name, tensor in tensors.items() if name not in positions}
        if whole:
            self.weights.load(whole)
        partial = {name: tensor for name, tensor in tensors.items() if name in positions}
        if partial:
            self.weights.patch(partial, positions, update.manifest.shapes)

    def probe(self) -> list[Completion]:
        """Greedy completions of the pinned prompts, with log-probabilities (of the untempered distribution)."""
        return self._greedy(self._probes)

    def parity(self, prompts: Sequence[tuple[int, ...]] = ()) -> tuple[list[Completion], list[Completion]]:
        """The pinned prompts answered with the prefix cache as it is, and again with it emptied.

        Args:
            prompts: further prompts as token ids. Those of recent rollouts have left their blocks in the cache, unlike
                the pinned ones. Only prompts longer than a block are informative; those too long for the model are
                left out.

        Returns:
            Both rounds' completions, like those of `probe`; see `rlpost.selfcheck.parity`.

        Raises:
            RuntimeError: if vLLM refuses to drop its prefix cache.
        """
        room = int(self.llm.llm_engine.vllm_config.model_config.max_model_len) - self._probe_tokens
        asked = [*self._probes, *(ids for ids in prompts if len(ids) <= room)]
        as_is = self._greedy(asked)
        self._drop_cache()
        return as_is, self._greedy(asked)

    def _greedy(self, prompts: Sequence[tuple[int, ...]]) -> list[Completion]:
        requests = [GenerateRequest(f"probe{i}", ids, 1, 0) for i, ids in enumerate(prompts)]
        return generate(self, requests, SamplingSettings(max_tokens=self._probe_tokens, temperature=0.0))

    def _drop_cache(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop its prefix cache: requests are still running")

    def _block_probe(self, probes: Sequence[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
        """A probe longer than a block of the prefix cache, made of the other probes.

        vLLM caches whole blocks only, so short probes would never be served from a stale cache. Empty if the model's
        context is too short for such a probe.
        """
        config = self.llm.llm_engine.vllm_config
        length = int(config.cache_config.block_size) + 1
        ids = [token for probe in probes for token in probe]
        if not ids or length + tokens > int(config.model_config.max_model_len):
            return []
        return [tuple((ids * (length // len(ids) + 1))[:length])]

    def _add(self, request: GenerateRequest, index: int, settings: SamplingSettings) -> str:
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
        adapter = self.adapter.request if self.adapter else None
        prompt = {"prompt_token_ids": list(request.prompt_ids)}
        self.llm.llm_engine.add_request(name, prompt, params, lora_request=adapter)
        return name

    def _completion(self, request: GenerateRequest, index: int, settings: SamplingSettings, output: Any) -> Completion:
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
