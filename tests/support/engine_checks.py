"""Runs in a process of its own (vLLM takes over threads and memory policy): prints one JSON object of findings."""

from __future__ import annotations

import json
import sys

import torch
from vllm.model_executor.layers import utils as layer_utils

from rlpost.data.chat import TextCodec
from rlpost.errors import SelfCheckError
from rlpost.learner.models import ScoringModel, load
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.vllm_engine import VllmEngine, VllmSettings
from rlpost.selfcheck import canary
from rlpost.sync.codec import checksum, encode
from rlpost.types import Prompt, WeightManifest, WeightUpdate

packed_gemm = layer_utils.dispatch_cpu_unquantized_gemm


def main(folder: str) -> dict:
    codec = TextCodec(folder)
    prompt = codec.encode(Prompt("a", text="∀ p q : Prop, p → q → p :="))
    engine = VllmEngine(VllmSettings(model=folder, dtype="float32"), codec, [prompt, prompt[:5]], 8)
    model = load(folder, "float32")
    scorer = ScoringModel(model)
    ask = [GenerateRequest("a", prompt, 4, 100), GenerateRequest("b", prompt[:6], 2, 900)]

    def score(completions, temperature):
        values = []
        for c in completions:
            full = torch.tensor([[*c.prompt_ids, *c.token_ids]])
            first = len(c.prompt_ids) - 1
            positions = torch.arange(first, first + len(c.token_ids)).unsqueeze(0)
            ids = torch.tensor([c.token_ids])
            with torch.no_grad():
                values.append(scorer(full, torch.ones_like(full), positions, ids, temperature)[0].numpy())
        return values

    def worst(completions, temperature):
        pairs = zip(score(completions, temperature), completions, strict=True)
        return max(float(abs(v - torch.tensor(c.logprobs).numpy()).max()) for v, c in pairs)

    def publish(version):
        payload = {name: encode(p) for name, p in model.named_parameters()}
        manifest = WeightManifest(version - 1, version, "full", {n: checksum(v) for n, v in payload.items()}, 0)
        return WeightUpdate(manifest, payload)

    def move(scale=0.05):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * scale)

    def probe_verdict():
        try:
            completions = engine.probe()
            canary.check_probe(completions, score(completions, 1.0), canary.TOLERANCE["float32"])
        except SelfCheckError as error:
            return str(error)
        return "healthy"

    torch.manual_seed(3)
    found: dict = {}
    settings = SamplingSettings(max_tokens=12)
    first = engine.generate(ask, settings)
    found["order"] = [(c.prompt_id, c.index, c.seed) for c in first]
    found["distinct"] = len({c.token_ids for c in first[:4]})
    found["repeat"] = [c.token_ids for c in first] == [c.token_ids for c in engine.generate(ask, settings)]
    found["parity"] = {
        t: worst(engine.generate(ask, SamplingSettings(max_tokens=12, temperature=t)), t) for t in (1.0, 0.6)
    }
    found["probe"] = probe_verdict()

    update = publish(1)
    found["nothing_changed"] = engine.apply(update).changed
    move()
    update = publish(2)
    report = engine.apply(update)
    found["changed"], found["tensors"] = report.changed, len(update.payload)
    found["arrived"] = dict(report.checksums) == dict(update.manifest.checksums)
    found["after_update"] = probe_verdict()

    cut = engine.generate([GenerateRequest("a", prompt, 2, 5)], SamplingSettings(max_tokens=100), deadline_s=0.0)
    found["aborted"] = [(c.finish_reason, c.token_ids) for c in cut]
    stopped = engine.generate([GenerateRequest("a", prompt, 8, 5)], SamplingSettings(max_tokens=60, stop=(" p",)))
    found["stop_in_text"] = sum(" p" in c.text for c in stopped if c.finish_reason == "stop")
    found["stopped"] = sum(c.finish_reason == "stop" for c in stopped)

    long = [GenerateRequest(f"l{i}", tuple([5 + i % 50] * 200), 1, i) for i in range(64)]
    found["long_batch"] = [c.finish_reason for c in engine.generate(long, SamplingSettings(max_tokens=4))]

    # planted: a prefix cache that outlives the weights
    engine.probe()
    reset, engine.llm.reset_prefix_cache = engine.llm.reset_prefix_cache, lambda: True
    move()
    engine.apply(publish(3))
    found["stale_cache"] = probe_verdict()
    engine.llm.reset_prefix_cache = reset
    engine.apply(publish(3))
    found["cache_dropped"] = probe_verdict()

    # planted: vLLM's own packing of lm_head, which keeps a copy that no parameter shows
    engine.llm.apply_model(lambda m: packed_gemm(m.lm_head, remove_weight=False))
    found["packed_before"] = probe_verdict()
    move()
    update = publish(4)
    report = engine.apply(update)
    found["stale_head_checksums"] = dict(report.checksums) == dict(update.manifest.checksums)
    found["stale_head"] = probe_verdict()
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
