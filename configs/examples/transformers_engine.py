"""A custom rollout engine: transformers, one group at a time. It is slow and does not need vLLM.

    rlpost train configs/quickstart.yaml rollout.engine=configs/examples/transformers_engine.py:TransformersEngine

Copy it anywhere and give its path. `rlpost.protocols.RolloutEngine` has the contract. Before a run starts the engine is
tried on two tokens; after every sync its bytes and its log-probabilities are compared with the learner's.
"""

import time

import torch

from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.protocols import ApplyReport, GenerateRequest, SamplingSettings
from rlpost.rollout.stream import generate
from rlpost.sync.codec import checksums, decode
from rlpost.types import Completion


class TransformersEngine:
    """Samples token by token with a key/value cache.

    Args:
        config: the run configuration; ``rollout.top_p`` and ``rollout.top_k`` are not supported.
        spec: model folder, pinned prompts and limits, an `rlpost.protocols.EngineSpec`.
    """

    def __init__(self, config, spec):
        if config.rollout.top_p != 1.0 or config.rollout.top_k != -1:
            raise ValueError("rollout.top_p and top_k are not supported here; set them to 1.0 and -1")
        self.model = load(spec.model, config.model.dtype, config.model.trust_remote_code).eval()
        self.codec = TextCodec(spec.model, config.model.trust_remote_code)
        self.probes, self.probe_tokens = spec.probes, config.selfcheck.probe_tokens
        self.version, self.number, self.waiting = -1, 0, []
        self.held = {}

    def submit(self, requests, settings):
        """Queue requests; returns their numbers."""
        first, self.number = self.number, self.number + len(requests)
        self.waiting += [(first + i, request, settings) for i, request in enumerate(requests)]
        return list(range(first, self.number))

    def step(self):
        """Sample one whole group, the oldest in the queue."""
        if not self.waiting:
            return []
        number, request, settings = self.waiting.pop(0)
        return [(number, completion) for completion in self._sample(request, settings)]

    def abort(self, numbers):
        """Drop requests that are still queued; returns their completions, without tokens."""
        late = [one for one in self.waiting if one[0] in numbers]
        self.waiting = [one for one in self.waiting if one[0] not in numbers]
        return [
            (number, Completion(r.prompt_id, i, r.prompt_ids, (), (), None, "", "abort", self.version, r.seed + i))
            for number, r, _ in late
            for i in range(r.n)
        ]

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
        requests = [GenerateRequest(f"probe{i}", ids, 1, 0) for i, ids in enumerate(self.probes)]
        return generate(self, requests, SamplingSettings(max_tokens=self.probe_tokens, temperature=0.0))

    def parity(self, prompts=()):
        """Return the probe twice: no cache outlives a group."""
        return self.probe(), self.probe()

    def close(self):
        """Do nothing: no process was started."""

    @torch.inference_mode()
    def _sample(self, request: GenerateRequest, settings: SamplingSettings):
        sources = [torch.Generator().manual_seed(request.seed + i) for i in range(request.n)]
        tokens: list[list[int]] = [[] for _ in sources]
        values: list[list[float]] = [[] for _ in sources]
        reasons = ["length"] * request.n
        fed, cache = torch.tensor([request.prompt_ids] * request.n), None
        for _ in range(settings.max_tokens):
            output = self.model(fed, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            # log-probabilities at the sampling temperature; greedy decoding reports those at temperature 1
            logprobs = torch.log_softmax(output.logits[:, -1].float() / (settings.temperature or 1.0), -1)
            for i, source in enumerate(sources):
                if reasons[i] == "stop":
                    continue
                row = logprobs[i]
                token = int(torch.multinomial(row.exp(), 1, generator=source) if settings.temperature else row.argmax())
                tokens[i].append(token)
                values[i].append(float(row[token]))
                if token == self.codec.tokenizer.eos_token_id or self._stopped(tokens[i], settings.stop):
                    reasons[i] = "stop"
            if all(reason == "stop" for reason in reasons):
                break
            fed = torch.tensor([[ids[-1]] for ids in tokens])
        return [self._completion(request, i, tokens[i], values[i], reasons[i], settings) for i in range(request.n)]

    def _stopped(self, tokens, stop):
        return bool(stop) and any(one in self.codec.decode(tokens)[0] for one in stop)

    def _completion(self, request, index, tokens, values, reason, settings):
        text, spans = self.codec.decode(tokens, settings.stop if reason == "stop" else ())
        logprobs = tuple(values) if settings.logprobs else None
        return Completion(
            request.prompt_id, index, request.prompt_ids, tuple(tokens), spans, logprobs, text, reason, self.version,
            request.seed + index,
        )  # fmt: skip
