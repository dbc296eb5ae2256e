"""The vLLM rollout engine, run in the process of its actor."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlpost.config.schema import RunConfig
from rlpost.config.update_kind import engine_rank
from rlpost.data.constraint import constraint_of
from rlpost.decoding import DecodingConstraint
from rlpost.protocols import ApplyReport, EngineSpec, GenerateRequest, SamplingSettings
from rlpost.rollout.episode import greedy
from rlpost.rollout.vllm.compat import ASKED
from rlpost.rollout.vllm.load import VllmSettings, load
from rlpost.rollout.vllm.lora import ActiveAdapter, parse
from rlpost.rollout.vllm.weights import shared_folder
from rlpost.sync.codec import decode
from rlpost.trajectory import Completion, FinishReason, Trajectory, VersionSpan
from rlpost.types import WeightUpdate

_FINISH: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


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
    return VllmEngine(settings, spec.probes, config.selfcheck.probe_tokens, constraint_of(config, spec.model))


class VllmEngine:
    """`rlpost.protocols.RolloutEngine` on vLLM.

    Every completion is a separate request with its own seed; vLLM's prefix cache shares the group's prompt.

    Args:
        settings: model folder, dtype, memory and parallelism of the engine.
        probes: pinned prompts for `probe`, as token ids.
        probe_tokens: number of greedy tokens per probe.
        constraint: which tokens the answers to constrained requests may hold.
    """

    def __init__(
        self,
        settings: VllmSettings,
        probes: Sequence[np.ndarray] = (),
        probe_tokens: int = 8,
        constraint: DecodingConstraint | None = None,
    ):
        self.llm, self.weights = load(settings, constraint)
        self.constrained = constraint is not None
        self.model = settings.model
        self.adapter = ActiveAdapter(self.llm) if settings.adapter_rank else None
        self.index: dict[str, Tensor] = {}
        self.version = -1
        self.held: dict[str, str] = {}
        self._probe_tokens = probe_tokens
        self._probes = [*probes, *self._block_probe(probes, probe_tokens)]
        self._counter = 0
        self._running: dict[str, _Running] = {}

    def submit(self, requests: Sequence[GenerateRequest], settings: SamplingSettings) -> list[int]:
        """See `RolloutEngine`."""
        numbers: list[int] = []
        for request in requests:
            self._counter += 1
            self._add(str(self._counter), request, settings)
            self._running[str(self._counter)] = _Running(settings.logprobs, [(self.version, 0)])
            numbers.append(self._counter)
        return numbers

    def step(self) -> list[tuple[int, Completion]]:
        """See `RolloutEngine`."""
        engine: Any = self.llm.llm_engine
        return [
            (int(output.request_id), self._completion(self._running.pop(output.request_id), output.outputs[0]))
            for output in engine.step()
            if output.finished and output.request_id in self._running
        ]

    def abort(self, numbers: Collection[int]) -> list[tuple[int, Completion]]:
        """See `RolloutEngine`."""
        names = [name for name in map(str, numbers) if name in self._running]
        # abort_request hands nothing back: what was sampled is read from the requests' states first
        partial = {name: self._partial(name) for name in names}
        self.llm.llm_engine.abort_request(names)
        return [(int(name), self._completion(self._running.pop(name), partial[name])) for name in names]

    def close(self) -> None:
        """End vLLM's worker processes, if there are any, and free what they share."""
        self.llm.llm_engine.engine_core.shutdown()

    def apply(self, update: WeightUpdate) -> ApplyReport:
        """Load an update into the model, drop all keys and values of the old one, and read back what it now holds.

        Requests that are running go on under the new weights, and their completions say which version sampled what.

        Raises:
            RuntimeError: if vLLM refuses to drop its prefix cache (it would go on serving the old policy), the update
                builds on one that this engine never received, or an adapter is replaced while requests run.
        """
        started = time.perf_counter()
        shapes = update.manifest.shapes
        before = self.held or self.weights.checksums(shapes)
        reached = {name: len(self._partial(name).token_ids) for name in self._running}
        self._take(update)
        self._drop_cache()
        self.held = self.weights.checksums(shapes)
        self.version = update.manifest.new_version
        for name, length in reached.items():
            self._running[name].versions.append((self.version, length))
        changed = sum(before.get(name) != value for name, value in self.held.items())
        return ApplyReport(self.version, self.held, changed, time.perf_counter() - started)

    def _take(self, update: WeightUpdate) -> None:
        """Load an update of any kind into the model."""
        tensors = {name: decode(payload) for name, payload in update.payload.items()}
        if update.manifest.kind == "adapter":
            if self.adapter is None:
                raise RuntimeError("an adapter was published, but this engine was started without adapters")
            if self._running:
                raise RuntimeError("an adapter was published while requests run, which vLLM has bound to the old one")
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

    def probe(self) -> list[Trajectory]:
        """Greedy completions of the pinned prompts, with log-probabilities (of the untempered distribution)."""
        return self._greedy(self._probes)

    def parity(self, prompts: Sequence[np.ndarray] = ()) -> tuple[list[Trajectory], list[Trajectory]]:
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

    def _greedy(self, prompts: Sequence[np.ndarray]) -> list[Trajectory]:
        return greedy(self, prompts, self._probe_tokens)

    def _drop_cache(self) -> None:
        """Drop all keys and values; running requests compute theirs again."""
        options = {"reset_running_requests": True} if self._running else {}
        if not self.llm.reset_prefix_cache(**options):
            raise RuntimeError("vLLM did not drop its prefix cache: requests are still running")

    def _block_probe(self, probes: Sequence[np.ndarray], tokens: int) -> list[np.ndarray]:
        """A probe longer than a block of the prefix cache, made of the other probes.

        vLLM caches whole blocks only, so short probes would never be served from a stale cache. Empty if the model's
        context is too short for such a probe.
        """
        config = self.llm.llm_engine.vllm_config
        length = int(config.cache_config.block_size) + 1
        ids = np.concatenate([np.zeros(0, np.int32), *probes])
        if not len(ids) or length + tokens > int(config.model_config.max_model_len):
            return []
        return [np.resize(ids, length)]

    def _add(self, name: str, request: GenerateRequest, settings: SamplingSettings) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if settings.constrained and not self.constrained:
            raise ValueError("a constrained request, but the engine was started without rollout.constraint")
        params = SamplingParams(
            n=1,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=request.max_tokens,
            seed=request.seed,
            stop=list(settings.stop) or None,
            stop_token_ids=list(settings.stop_token_ids) or None,
            logprobs=0 if settings.logprobs else None,
            detokenize=bool(settings.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={ASKED: True} if settings.constrained else None,
        )
        adapter = self.adapter.request if self.adapter else None
        prompt = {"prompt_token_ids": request.token_ids.tolist()}
        self.llm.llm_engine.add_request(name, prompt, params, lora_request=adapter)

    def _partial(self, name: str) -> _Output:
        """What a running request has sampled so far."""
        processor = self.llm.llm_engine.output_processor
        # newer versions of vLLM name requests anew inside
        inner = getattr(processor, "external_req_ids", {}).get(name) or [name]
        state = processor.request_states[inner[0]]
        detokenizer, logprobs = state.detokenizer, state.logprobs_processor
        ids = list(detokenizer.output_token_ids) if detokenizer else []
        rows = list((logprobs.logprobs if logprobs else None) or [])
        return _Output(ids, rows or None, None)

    def _completion(self, running: _Running, output: Any) -> Completion:
        ids = np.asarray(output.token_ids, np.int32)
        logprobs = None
        if running.logprobs:
            rows = output.logprobs or ()
            logprobs = np.array([row[token].logprob for row, token in zip(rows, ids.tolist(), strict=True)], np.float32)
        return Completion(ids, logprobs, _FINISH.get(output.finish_reason, "abort"), running.spans(len(ids)))


@dataclass(frozen=True, slots=True)
class _Output:
    """The parts of vLLM's ``CompletionOutput`` that are read, of a request that is still running."""

    token_ids: list[int]
    logprobs: list[Any] | None
    finish_reason: str | None


@dataclass(slots=True)
class _Running:
    """A running request: whether its log-probabilities are reported, and (version, first token) of each version."""

    logprobs: bool
    versions: list[tuple[int, int]]

    def spans(self, size: int) -> tuple[VersionSpan, ...]:
        """The versions that sampled ``size`` tokens."""
        ends = [*(start for _, start in self.versions[1:]), size]
        spans = [(version, start, stop) for (version, start), stop in zip(self.versions, ends, strict=True)]
        return tuple(span for span in spans if span[1] < span[2])
