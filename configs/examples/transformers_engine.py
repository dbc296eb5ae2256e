"""A custom rollout engine: transformers, one batch at a time. It is slow and does not need vLLM.

    rlpost train configs/quickstart.yaml rollout.engine=configs/examples/transformers_engine.py:TransformersEngine

Copy it anywhere and give its path. `rlpost.protocols.RolloutEngine` has the contract. Before a run starts the engine is
tried on two tokens; after every sync its bytes and its log-probabilities are compared with the learner's.
"""

import time

import numpy as np
import torch

from rlpost.data.constraint import constraint_of
from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.decoding import walk_of
from rlpost.protocols import ApplyReport, SamplingSettings
from rlpost.rollout.episode import greedy
from rlpost.sync.codec import checksums, decode
from rlpost.trajectory import Completion


class TransformersEngine:
    """Samples token by token with a key/value cache.

    Args:
        config: the run configuration; ``top_p`` and ``top_k`` of ``evaluation.sampling`` are not supported.
        spec: model folder, pinned prompts and limits, an `rlpost.protocols.EngineSpec`.
    """

    def __init__(self, config, spec):
        if config.evaluation.sampling.top_p != 1.0 or config.evaluation.sampling.top_k != -1:
            raise ValueError("evaluation.sampling: top_p and top_k are not supported here; remove them")
        self.model = load(spec.model, config.model.dtype, config.model.trust_remote_code).eval()
        self.codec = TextCodec(spec.model, config.model.trust_remote_code)
        self.constraint = constraint_of(config, spec.model)
        # rows of the head without a token, which the learner's softmax leaves out too
        self.missing = self.codec.missing_ids(self.model.get_output_embeddings().weight.shape[0])
        self.probes, self.probe_tokens = spec.probes, config.selfcheck.probe_tokens
        self.version, self.number, self.waiting = -1, 0, []
        self.held = {}

    def submit(self, requests, settings):
        """Queue requests; returns their numbers."""
        first, self.number = self.number, self.number + len(requests)
        self.waiting += [(first + i, request, settings) for i, request in enumerate(requests)]
        return list(range(first, self.number))

    def step(self):
        """Sample the oldest request in the queue, together with all others that have its context."""
        if not self.waiting:
            return []

        def kind(request):
            return request.token_ids.tolist(), request.max_tokens

        _, first, settings = self.waiting[0]
        same = [one for one in self.waiting if kind(one[1]) == kind(first)]
        self.waiting = [one for one in self.waiting if kind(one[1]) != kind(first)]
        found = self._sample([request for _, request, _ in same], settings)
        return [(number, completion) for (number, _, _), completion in zip(same, found, strict=True)]

    def abort(self, numbers):
        """Drop requests that are still queued; returns their completions, without tokens."""
        late = [number for number, _, _ in self.waiting if number in numbers]
        self.waiting = [one for one in self.waiting if one[0] not in numbers]
        return [(number, Completion(np.zeros(0, np.int32), None, "abort", ())) for number in late]

    def apply(self, update):
        """Copy whole tensors into the model, and read back what it then holds."""
        if update.manifest.kind != "full":
            raise ValueError(f"this engine takes whole tensors, not {update.manifest.kind}; set sync.kind: full")
        begun, before = time.perf_counter(), self.held
        held = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, payload in update.payload.items():
                held[name].copy_(decode(payload))
        self.version = update.manifest.new_version
        self.held = checksums((name, held[name]) for name in update.manifest.shapes)
        changed = sum(before.get(name) != value for name, value in self.held.items())
        return ApplyReport(self.version, self.held, changed, time.perf_counter() - begun)

    def probe(self):
        """Complete the pinned prompts greedily."""
        return greedy(self, self.probes, self.probe_tokens)

    def parity(self, prompts=()):
        """Return the probe twice: no cache outlives a group."""
        return self.probe(), self.probe()

    def close(self):
        """Do nothing: no process was started."""

    @torch.inference_mode()
    def _sample(self, requests, settings: SamplingSettings):
        sources = [torch.Generator().manual_seed(request.seed) for request in requests]
        tokens: list[list[int]] = [[] for _ in sources]
        values: list[list[float]] = [[] for _ in sources]
        walks = [walk_of(self.constraint) for _ in sources] if settings.constrained else []
        finish = ["length"] * len(requests)
        fed, cache = torch.tensor(np.stack([request.token_ids for request in requests])).long(), None
        for _ in range(requests[0].max_tokens):
            output = self.model(fed, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            # log-probabilities at the sampling temperature; greedy decoding reports those at temperature 1
            logits = output.logits[:, -1].float() / (settings.temperature or 1.0)
            logits[:, self.missing] = -torch.inf
            for i, walk in enumerate(walks):
                if finish[i] != "stop":
                    kept = torch.from_numpy(walk.allowed().astype(np.int64))
                    logits[i] = torch.full_like(logits[i], -torch.inf).index_copy(0, kept, logits[i][kept])
            logprobs = torch.log_softmax(logits, -1)
            for i, source in enumerate(sources):
                if finish[i] == "stop":
                    continue
                row = logprobs[i]
                token = int(torch.multinomial(row.exp(), 1, generator=source) if settings.temperature else row.argmax())
                tokens[i].append(token)
                if walks:
                    walks[i].advance(token)
                values[i].append(float(row[token]))
                ends = (self.codec.tokenizer.eos_token_id, *settings.stop_token_ids)
                if token in ends or self._stopped(tokens[i], settings.stop):
                    finish[i] = "stop"
            if all(one == "stop" for one in finish):
                break
            fed = torch.tensor([[ids[-1]] for ids in tokens])
        return [
            Completion(
                np.array(tokens[i], np.int32),
                np.array(values[i], np.float32) if settings.logprobs else None,
                finish[i],
                ((self.version, 0, len(tokens[i])),),
            )
            for i in range(len(requests))
        ]

    def _stopped(self, tokens, stop):
        return bool(stop) and any(one in self.codec.decode(tokens)[0] for one in stop)
