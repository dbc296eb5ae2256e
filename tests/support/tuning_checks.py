"""Every tuning method and kind of update between a learner and a real vLLM engine; prints one JSON object of findings.

Runs in a process of its own, as `engine_checks.py` does. One engine serves all methods of its kind: before each, the
starting model is restored (an engine with adapters always holds it).
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from typing import Any

import numpy as np
import torch

from rlpost.algorithms.credit import train_samples
from rlpost.config.load import from_dict
from rlpost.config.update_kind import engine_rank, kind_of
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import SelfCheckError
from rlpost.learner.build import build_learner
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.vllm import packed_linear
from rlpost.rollout.vllm.engine import VllmEngine, VllmSettings
from rlpost.selfcheck import canary
from rlpost.trajectory import Trajectory
from rlpost.types import Prompt, TrainBatch
from support.trajectories import sample

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SUBNETWORK = {"density": 0.1, "mask": "random"}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "full_diff": {"sync": {"kind": "diff"}},
    "full_galore": {"optimizer": {"name": "lowrank", "lowrank": {"rank": 8, "gap": 2}}},
    "full_muon": {"optimizer": {"name": "muon"}},
    "full_bf16_masters": {"model": {"dtype": "bfloat16"}},
    "subnetwork": {"tuning": {"method": "subnetwork", "subnetwork": SUBNETWORK}},
    "subnetwork_gradient": {
        "tuning": {"method": "subnetwork", "subnetwork": {"density": 0.1, "scope": "global", "warmup_steps": 2}}
    },
    "subnetwork_hook": {"tuning": {"method": "subnetwork", "subnetwork": {**SUBNETWORK, "engine": "hook"}}},
    "subnetwork_full": {"tuning": {"method": "subnetwork", "subnetwork": SUBNETWORK}, "sync": {"kind": "full"}},
    "subnetwork_diff": {"tuning": {"method": "subnetwork", "subnetwork": SUBNETWORK}, "sync": {"kind": "diff"}},
    "lora_full": {"tuning": {"method": "lora"}, "sync": {"kind": "full"}},
    "miss": {"tuning": {"method": "peft:miss", "peft": {"r": 8}}},
    "dora": {"tuning": {"method": "peft:lora", "peft": {"r": 8, "use_dora": True}}},
    "randlora": {"tuning": {"method": "peft:randlora", "peft": {"r": 8}}},
    "vera": {"tuning": {"method": "peft:vera", "peft": {"r": 8, "d_initial": 1.0}}},
    "osf": {"tuning": {"method": "peft:osf"}},
    "shira": {"tuning": {"method": "peft:shira", "peft": {"r": 8}}},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"tuning": {"method": "lora"}},
    "lora_ranks": {
        "tuning": {"method": "lora", "lora": {"r": 8, "rslora": True, "rank_pattern": {"q_proj": 4}, "alpha": 8}}
    },
    "lora_plus": {"tuning": {"method": "lora"}, "optimizer": {"lora_plus_ratio": 4.0}},
    "ffa": {"tuning": {"method": "lora", "lora": {"freeze_a": True}}},
    "pissa": {"tuning": {"method": "lora", "lora": {"init": "pissa", "r": 8}}},
    "olora": {"tuning": {"method": "lora", "lora": {"init": "olora", "r": 8}}},
    "lora_xs": {"tuning": {"method": "lora_xs"}},
    "lora_sb": {"tuning": {"method": "lora_xs", "lora_xs": {"init": "gradient", "init_lr": 1e-2}}},
}


def configured(folder: str, change: dict[str, Any]) -> Any:
    tree: dict[str, Any] = {
        "run": {"steps": 4},
        "model": {"path": folder, "dtype": "float32"},
        "scoring": {"verifier": "function"},
        "rollout": {"max_tokens": 16},
        "optimizer": {"lr": 1e-2},
        "algorithm": {"kl": {"coef": 0.1}, "importance": {"mode": "off"}},
        "learner": {"engine": "torch", "micro_tokens": 40},
    }
    for name, values in change.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


def batch(step: int, version: int | None = None) -> TrainBatch:
    """Random samples of this version, or of the version that a learner has at this step."""
    rng = np.random.default_rng(step)
    samples = []
    for _ in range(6):
        n = int(rng.integers(3, 9))
        prompt, completion = rng.integers(3, 60, 3).tolist(), rng.integers(3, 60, n).tolist()
        of = step if version is None else version
        samples.append(sample(prompt, completion, advantages=rng.normal(), version=of))
    return TrainBatch(tuple(samples), step)


class Pair:
    """An engine, and one learner after another."""

    def __init__(self, folder: str, adapters: bool, dtype: str = "float32"):
        ids = TextCodec(folder).encode(Prompt("a", text="∀ p q : Prop, p → q → p :="))
        self.folder, self.prompt = folder, np.array(ids, np.int32)
        rank = 16 if adapters else None
        settings = VllmSettings(model=folder, dtype=dtype, adapter_rank=rank, kv_cache_mb=256, enforce_eager=True)
        self.engine = VllmEngine(settings, [self.prompt, self.prompt[:5]], 8)
        plain = build_learner(configured(folder, {}), folder, DEVICE)
        self.base = plain.export()
        self.before = {name: tensor.clone() for name, tensor in plain.weights()}

    def start(self, change: dict[str, Any]) -> None:
        self.config = configured(self.folder, change)
        self.learner = build_learner(self.config, self.folder, DEVICE)
        if self.engine.adapter is None:
            self.engine.apply(self.base)
        self.published = None
        self.publish()

    def publish(self) -> None:
        update = self.learner.export()
        report = self.engine.apply(update)
        canary.check_arrival(update.manifest, [report], self.published)
        self.published = update.manifest

    def difference(self) -> float:
        """Largest |Δ log p| between engine and learner on the probes."""
        completions = self.engine.probe()
        found = self.score(completions)
        worst = [abs(v - c.logprobs[c.mask]).max() for v, c in zip(found, completions, strict=True)]
        return float(max(worst))

    def score(self, completions: list[Trajectory]) -> list[np.ndarray]:
        """The learner's log-probabilities of sampled tokens."""
        samples = [sample for completion in completions for sample in train_samples(completion)]
        found = self.learner.logprobs(samples, temperature=1.0)
        return [found[i][completion.mask] for i, completion in enumerate(completions)]

    def verdict(self) -> str:
        try:
            self.publish()
        except SelfCheckError as error:
            return str(error)
        return self.probe()

    def probe(self) -> str:
        completions = self.engine.probe()
        try:
            canary.check_probe(completions, self.score(completions), canary.LARGEST["float32"])
        except SelfCheckError as error:
            return str(error)
        return "healthy"

    def reference(self) -> float:
        """Largest |Δ log p| between the reference policy after training and the starting model."""
        samples = batch(0).samples
        plain = build_learner(configured(self.folder, {}), self.folder, DEVICE)
        one, other = self.learner.logprobs(samples, reference=True), plain.logprobs(samples)
        return float(max(abs(one[i] - other[i])[s.mask].max() for i, s in enumerate(samples)))


def invariant(pair: Pair, change: dict[str, Any]) -> dict[str, Any]:
    """Differences between engine and learner at the start and after updates, and how far the policy moved."""
    pair.start(change)
    found: dict[str, Any] = {"start": pair.difference(), "kind": kind_of(pair.config)}
    asked = batch(9).samples
    before = pair.learner.logprobs(asked)
    for step in range(pair.config.tuning.warmup_steps + 2):
        pair.learner.step(batch(step))
        pair.publish()
    after = pair.learner.logprobs(asked)
    found["after"] = pair.difference()
    found["moved"] = float(max(abs(after[i] - before[i])[s.mask].max() for i, s in enumerate(asked)))
    found["reference"] = pair.reference()
    found["bytes"] = pair.published.nbytes
    changed = {n: t.cpu() != pair.before[n].cpu().to(t.dtype) for n, t in pair.learner.weights()}
    found["changed"] = sum(int(c.sum()) for c in changed.values()) / sum(c.numel() for c in changed.values())
    pair.learner.engine.close()
    return found


def planted(pair: Pair) -> dict[str, str]:
    """The canary's findings on planted silent failures."""
    engine, found = pair.engine, {}
    if engine.adapter is not None:
        pair.start(ADAPTERS["lora"])
        pair.learner.step(batch(0))
        with held(engine, "_take", lambda update: None):
            found["adapter_not_sent"] = pair.verdict()
        found["sent"] = pair.verdict()
        running = engine.submit([GenerateRequest(pair.prompt, 4, 0)], SamplingSettings(max_tokens=4))
        try:
            pair.publish()
        except RuntimeError as error:
            found["adapter_while_requests_run"] = str(error)
        engine.abort(running)
        request, engine.adapter.request = engine.adapter.request, None
        found["adapter_not_used"] = pair.probe()
        engine.adapter.request = request
        with torch.no_grad():
            parameter = next(p for n, p in model_of(engine).named_parameters() if "o_proj.base_layer" in n)
            parameter.add_(1e-3)
        found["wrong_base"] = pair.verdict()
        return found
    pair.start(METHODS["subnetwork"])
    pair.learner.step(batch(0))
    declared, engine.index = engine.index, {}
    try:
        pair.publish()
    except RuntimeError as error:
        found["values_without_positions"] = str(error)
    engine.index = {n: (i + 1) % pair.before[n].numel() for n, i in declared.items()}
    found["wrong_positions"] = pair.verdict()
    pair.start(METHODS["full_diff"])
    norm = pair.learner.engine.module.model.model.norm.weight.data
    norm[0] += 1
    pair.learner.export()  # a version that this engine never sees
    norm[1] += 1
    found["wrong_base_of_a_difference"] = pair.verdict()
    pair.engine.apply(pair.learner.snapshot())
    norm[2] += 1
    found["after_a_snapshot"] = pair.verdict()
    found["difference_bytes"] = str(pair.published.nbytes)
    pair.start(METHODS["subnetwork"])
    pair.engine.probe()  # fills the cache
    for step in range(8):
        pair.learner.step(batch(step))
    with held(engine, "_drop_cache", lambda: None):
        found["stale_cache"] = pair.verdict()
    if DEVICE.type == "cuda":  # packed kernels exist on CPU only
        return found
    pair.learner.step(batch(1, version=8))
    repack, packed_linear.repack = packed_linear.repack, lambda model: 0
    found["stale_kernels"] = pair.verdict()
    packed_linear.repack = repack
    return found


def model_of(engine: Any) -> Any:
    found = []
    engine.llm.apply_model(found.append)
    return found[0]


@contextlib.contextmanager
def held(target: Any, name: str, value: Any) -> Any:
    setattr(target, name, value)
    try:
        yield
    finally:
        delattr(target, name)


def main(folder: str, kind: str, *names: str) -> None:
    adapters = kind == "adapters"
    table = ADAPTERS if adapters else METHODS
    if kind == "bfloat16":
        pair = Pair(folder, False, "bfloat16")
        print(json.dumps({"full_bf16_masters": invariant(pair, METHODS["full_bf16_masters"])}))
        return
    pair = Pair(folder, adapters)
    found: dict[str, Any] = {}
    for name in names or [n for n in table if "bf16" not in n]:
        try:
            found[name] = invariant(pair, table[name])
        except Exception as error:
            if names:
                raise
            found[name] = repr(error)
            traceback.print_exc()
        print(name, found[name], file=sys.stderr, flush=True)
    assert engine_rank(configured(folder, ADAPTERS["pissa"])) == 16
    if not names:
        found["planted"] = planted(pair)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
