"""Checks of the vLLM engine in a process of its own (vLLM changes threads and memory policy); prints JSON findings."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace

import torch

from rlpost.data.models import load
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import SelfCheckError
from rlpost.learner.logprob_model import LogprobModel
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.stream import generate
from rlpost.rollout.vllm import packed_linear
from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings
from rlpost.selfcheck import canary
from rlpost.selfcheck.parity import Published, Scored, check_parity
from rlpost.sync.codec import checksums, encode
from rlpost.types import Prompt, WeightManifest, WeightUpdate

TOLERANCE = canary.TOLERANCE["float32"]


class Pair:
    """An engine and a learner's model from the same folder, with a small version of the loop's steps."""

    def __init__(self, folder: str, packed: bool, shards: int):
        codec = TextCodec(folder)
        self.prompt = codec.encode(Prompt("a", text="∀ p q : Prop, p → q → p :="))
        settings = VllmSettings(model=folder, dtype="float32", packed_weights=packed, tensor_parallel=shards)
        self.engine = VllmEngine(settings, codec, [self.prompt, self.prompt[:5]], 8)
        self.model = load(folder, "float32")
        self.scorer = LogprobModel(self.model)
        self.version = 0
        self.publish()

    def score(self, completions, temperature=1.0):
        values = []
        for c in completions:
            full = torch.tensor([[*c.prompt_ids, *c.token_ids]])
            first = len(c.prompt_ids) - 1
            positions = torch.arange(first, first + len(c.token_ids)).unsqueeze(0)
            ids = torch.tensor([c.token_ids])
            with torch.no_grad():
                values.append(self.scorer(full, torch.ones_like(full), positions, ids, temperature)[0].numpy())
        return values

    def worst(self, completions, temperature=1.0):
        """Largest |Δ log p| between engine and learner."""
        pairs = zip(self.score(completions, temperature), completions, strict=True)
        return max(float(abs(v - torch.tensor(c.logprobs).numpy()).max()) for v, c in pairs)

    def publish(self):
        """Send the learner's weights; returns the engine's report and whether every byte arrived."""
        self.version += 1
        payload = {name: encode(p) for name, p in self.model.named_parameters()}
        sums = checksums(payload.items())
        manifest = WeightManifest(
            self.version - 1, self.version, "full", sums, 0, {n: v.shape for n, v in payload.items()}
        )
        report = self.engine.apply(WeightUpdate(manifest, payload))
        self.recorded = self.engine.probe()
        self.then = self.score(self.recorded)
        return SimpleNamespace(changed=report.changed, tensors=len(sums), arrived=dict(report.checksums) == sums)

    def move(self, scale=0.05):
        """Change all weights, by more than an optimizer step would."""
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(torch.randn_like(p) * scale)

    def probe_verdict(self):
        try:
            completions = self.engine.probe()
            canary.check_probe(completions, self.score(completions), TOLERANCE)
        except SelfCheckError as error:
            return str(error)
        return "healthy"

    def parity_verdict(self, prompts=(), synchronous=True):
        as_is, fresh = self.engine.parity(prompts)
        published = Published(self.then, self.score(self.recorded))
        pair = Scored(as_is, self.score(as_is)), Scored(fresh, self.score(fresh))
        try:
            return check_parity(*pair, published, TOLERANCE, synchronous)
        except SelfCheckError as error:
            return str(error)


def sampling(pair: Pair) -> dict:
    """Order, seeds, log-probabilities, deadlines, stop strings, long batches."""
    engine, prompt, found = pair.engine, pair.prompt, {}
    ask = [GenerateRequest("a", prompt, 4, 100), GenerateRequest("b", prompt[:6], 2, 900)]
    settings = SamplingSettings(max_tokens=12)
    first = generate(engine, ask, settings)
    found["order"] = [(c.prompt_id, c.index, c.seed) for c in first]
    found["distinct"] = len({c.token_ids for c in first[:4]})
    found["repeat"] = [c.token_ids for c in first] == [c.token_ids for c in generate(engine, ask, settings)]
    found["agreement"] = {
        t: pair.worst(generate(engine, ask, SamplingSettings(max_tokens=12, temperature=t)), t) for t in (1.0, 0.6)
    }
    cut = generate(engine, [GenerateRequest("a", prompt, 2, 5)], SamplingSettings(max_tokens=100), deadline_s=0.0)
    found["aborted"] = [(c.finish_reason, c.token_ids) for c in cut]
    stopped = generate(engine, [GenerateRequest("a", prompt, 8, 5)], SamplingSettings(max_tokens=60, stop=(" p",)))
    found["stop_in_text"] = sum(" p" in c.text for c in stopped if c.finish_reason == "stop")
    found["stopped"] = sum(c.finish_reason == "stop" for c in stopped)
    long = [GenerateRequest(f"l{i}", tuple([5 + i % 50] * 200), 1, i) for i in range(64)]
    found["long_batch"] = [c.finish_reason for c in generate(engine, long, SamplingSettings(max_tokens=4))]
    return found


def updating(pair: Pair) -> dict:
    """An update arrives in every tensor, and the engine computes with it."""
    found: dict = {"at_start": pair.worst(pair.engine.probe()), "nothing_changed": pair.publish().changed}
    pair.move()
    found["update"] = vars(pair.publish())
    found["after_update"] = pair.worst(pair.engine.probe())
    found["probe"], found["parity"] = pair.probe_verdict(), pair.parity_verdict()
    found["kernels"] = pair.engine.llm.apply_model(packed_linear.repack)[0]
    return found


def stale_cache(pair: Pair) -> dict:
    """Planted: a prefix cache that is kept across an update."""
    engine, found = pair.engine, {}
    reset = engine.llm.reset_prefix_cache
    pair.move()
    engine.llm.reset_prefix_cache = lambda: True
    pair.publish()
    found["probe"] = pair.probe_verdict()
    engine.llm.reset_prefix_cache = reset
    found["parity"] = pair.parity_verdict()
    # a cache block that only a rollout uses, and none of the pinned prompts
    rollout = tuple(5 + i % 50 for i in range(200))
    generate(engine, [GenerateRequest("r", rollout, 1, 1)], SamplingSettings(max_tokens=2))
    pair.move()
    engine.llm.reset_prefix_cache = lambda: True
    pair.engine._probes = pair.engine._probes[:2]
    pair.publish()
    engine.llm.reset_prefix_cache = reset
    found["pinned_only"] = pair.parity_verdict()
    pair.publish()
    generate(engine, [GenerateRequest("r", rollout, 1, 1)], SamplingSettings(max_tokens=2))
    pair.move()
    engine.llm.reset_prefix_cache = lambda: True
    pair.publish()
    engine.llm.reset_prefix_cache = reset
    found["rollouts_prompt"] = pair.parity_verdict([rollout, rollout * 2])
    pair.publish()
    found["dropped"] = pair.parity_verdict([rollout])
    return found


def stale_kernels(pair: Pair) -> dict:
    """Planted: packed kernels that are not rebuilt, which no parameter shows."""
    found, repack = {}, packed_linear.repack
    packed_linear.repack = lambda model: 0
    pair.move()
    found["arrived"] = pair.publish().arrived
    packed_linear.repack = repack
    found["probe"], found["parity"] = pair.probe_verdict(), pair.parity_verdict()
    # the head alone, where vLLM's own loaders would leave it stale: tied embeddings
    repacked = packed_linear.PackedLinear.repack
    packed_linear.PackedLinear.repack = lambda self: (
        None if type(self.layer).__name__ in ("ParallelLMHead", "VocabParallelEmbedding") else repacked(self)
    )
    pair.move()
    found["head_arrived"] = pair.publish().arrived
    found["head"] = pair.probe_verdict()
    packed_linear.PackedLinear.repack = repacked
    pair.publish()
    found["repacked"] = pair.probe_verdict()
    return found


def disturb(model):
    """Change one rank's weights; a module-level function, so that it can be sent to a worker process."""
    from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

    if get_tensor_model_parallel_rank() == get_tensor_model_parallel_world_size() - 1:
        for p in model.parameters():
            p.data.mul_(1.1)
        packed_linear.repack(model)


def lost_updates(pair: Pair) -> dict:
    """Planted: a learner that moved without publishing, and an engine whose weights changed without an update."""
    pair.publish()
    pair.move()
    found: dict = {"moved": pair.parity_verdict(), "moved_asynchronous": pair.parity_verdict(synchronous=False)}
    pair.publish()
    pair.engine.llm.apply_model(disturb)
    pair.engine.llm.reset_prefix_cache()
    found["disturbed"] = pair.parity_verdict()
    held = pair.engine.weights.checksums({name: tuple(p.shape) for name, p in pair.model.named_parameters()})
    found["read_back"] = [sum(held[name] == value for name, value in pair.engine.held.items()), len(held)]
    found["between_ranks"] = "ranks differ" in held.values()
    return found


CHECKS = {f.__name__: f for f in (sampling, updating, stale_cache, stale_kernels, lost_updates)}


def main(folder: str, packed: str, shards: str, names: list[str]) -> dict:
    # an engine must start in a process that has imported numba (`rlpost.rollout.vllm.compat.tolerate_numba`). Not at
    # module level: vLLM's worker processes import this file again
    importlib.import_module("numba")
    torch.manual_seed(3)
    pair = Pair(folder, packed == "packed", int(shards))
    return {name: CHECKS[name](pair) for name in names}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], sys.argv[4:])))
