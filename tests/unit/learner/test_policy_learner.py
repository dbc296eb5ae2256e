"""The plain torch learner: updates, counters, publishing, checkpoints. Not covered: DeepSpeed, invariances of the
gradient (tests/property/test_learner_invariance.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.config.tuning import OptimizerSection
from rlpost.data.models import load
from rlpost.errors import CheckpointError, ConfigError, SelfCheckError
from rlpost.learner.build import build_learner
from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.passes import layout_of
from rlpost.learner.policy import PolicyLearner
from rlpost.learner.samples import Samples
from rlpost.optim.build import build_optimizer
from rlpost.selfcheck.canary import check_movement
from rlpost.sync.codec import checksum, decode
from rlpost.tuning.method import Full
from rlpost.types import TrainBatch
from support.trajectories import sample

CPU = torch.device("cpu")


def configured(folder: str, **sections: dict[str, Any]) -> RunConfig:
    tree: dict[str, Any] = {
        "run": {"steps": 4},
        "model": {"path": folder, "dtype": "float32"},
        "scoring": {"verifier": "function"},
        "rollout": {"max_tokens": 16},
        "optimizer": {"lr": 1e-2, "schedule": "linear", "warmup_steps": 1},
        "learner": {"engine": "torch", "micro_tokens": 40},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


def batch(step: int = 0, count: int = 4, advantage: float | None = None) -> TrainBatch:
    """Random samples of the step's policy version, with proximal log-probabilities of -4."""
    rng = np.random.default_rng(step)
    samples = []
    for _ in range(count):
        n = int(rng.integers(2, 8))
        value = rng.normal() if advantage is None else advantage
        prompt, completion = rng.integers(3, 60, 3), rng.integers(3, 60, n)
        samples.append(
            sample(prompt.tolist(), completion.tolist(), advantages=value, proximal=[-4.0] * n, version=step)
        )
    return TrainBatch(tuple(samples), step)


def changed(data: TrainBatch, **columns: Any) -> TrainBatch:
    """The batch with other columns; a function is called with each sample."""
    samples = [
        dataclasses.replace(one, **{name: made(one) if callable(made) else made for name, made in columns.items()})
        for one in data.samples
    ]
    return TrainBatch(tuple(samples), data.step)


def of_version(data: TrainBatch, version: int) -> TrainBatch:
    """The batch as if this policy version had sampled it."""
    return changed(data, versions=lambda one: np.where(one.mask, version, -1).astype(np.int32))


def filled(data: TrainBatch, **columns: Mapping[int, np.ndarray]) -> TrainBatch:
    """The batch with log-probabilities filled in where they are missing."""
    samples = Samples.of(data.samples)
    for name, values in columns.items():
        samples.fill(name, values)
    return TrainBatch(tuple(samples), data.step)


def total(logprobs: Mapping[int, np.ndarray], data: TrainBatch) -> float:
    """Sum over the sampled tokens of a batch."""
    return float(sum(logprobs[row][one.mask].sum() for row, one in enumerate(data.samples)))


def weights(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_an_update_moves_the_weights_towards_what_was_rewarded(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    rewarded = batch(advantage=1.0)
    rewarded = without_old(rewarded)
    before = learner.logprobs(rewarded.samples)
    metrics = learner.step(rewarded)
    after = learner.logprobs(rewarded.samples)
    assert total(after, rewarded) > total(before, rewarded)
    assert metrics["ratio"] == pytest.approx(1.0)
    assert metrics["loss"] == pytest.approx(-1.0, rel=1e-5)
    # an untrained model's distributions are nearly uniform
    vocabulary = learner.engine.module.model.config.vocab_size
    assert 0.9 * math.log(vocabulary) < metrics["entropy"] < math.log(vocabulary)


def test_a_nan_advantage_skips_the_update_and_is_counted(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    learner.step(batch(0))
    before, moments = weights(learner), learner.engine.optimizer.state_dict()["state"]  # type: ignore[attr-defined]
    kept = {k: v["exp_avg"].clone() for k, v in moments.items()}
    metrics = learner.step(batch(1, advantage=math.nan))
    assert same(weights(learner), before)
    after = learner.engine.optimizer.state_dict()["state"]  # type: ignore[attr-defined]
    assert all(torch.equal(kept[k], after[k]["exp_avg"]) for k in kept)
    assert (metrics["skipped_updates"], learner.counters.skipped, learner.counters.updates) == (1.0, 1, 2)
    assert math.isnan(metrics["grad_norm"])
    # the next good batch trains as usual
    metrics = learner.step(batch(2))
    assert not same(weights(learner), before)
    assert metrics["skipped_updates"] == 1.0
    assert math.isfinite(metrics["grad_norm"])


def test_updates_count_over_batches_and_drive_the_schedule(tiny_model: str) -> None:
    config = configured(tiny_model, algorithm={"epochs": 2})
    learner = build_learner(config, tiny_model, CPU)
    # 4 steps of 2 updates: warmup 1, then linear over 7: rates 1/2, 1 | 6/7, 5/7 of 0.01
    assert learner.step(batch(0))["lr"] == pytest.approx(0.01 * (1 / 2 + 1) / 2)
    assert learner.step(batch(1))["lr"] == pytest.approx(0.01 * (6 / 7 + 5 / 7) / 2)
    assert (learner.counters.updates, learner.counters.version) == (4, 2)


def test_batches_with_groups_left_out_do_not_stretch_the_schedule(tiny_model: str) -> None:
    rollout = {"group_size": 2, "prompts_per_step": 4}
    config = configured(tiny_model, rollout=rollout, algorithm={"minibatch_size": 2}, optimizer={"warmup_steps": 0})
    learner = build_learner(config, tiny_model, CPU)
    # 4 steps of nominally 4 updates of 2 samples, linear over 16; here 2 samples are left, and then 6
    assert learner.step(batch(0, count=2))["lr"] == pytest.approx(0.01)
    # 3 updates at 4, 4 + 4/3 and 4 + 8/3
    assert learner.step(batch(1, count=6))["lr"] == pytest.approx(0.01 * (1 - (4 + 4 / 3) / 16))
    # a batch with nothing left makes no update and its share of the run passes; the last update is at 12 of 16
    assert learner.step(of_version(dataclasses.replace(batch(3, count=2), step=3), 2))["lr"] == pytest.approx(0.01 / 4)
    assert learner.counters.updates == 5


def test_a_changed_number_of_steps_continues_at_its_share_of_the_run(tiny_model: str, tmp_path: Path) -> None:
    first = build_learner(configured(tiny_model, optimizer={"warmup_steps": 0}), tiny_model, CPU)
    for step in range(2):
        first.step(batch(step))
    first.save(str(tmp_path / "learner"))
    longer = build_learner(configured(tiny_model, run={"steps": 8}, optimizer={"warmup_steps": 0}), tiny_model, CPU)
    longer.load(str(tmp_path / "learner"))
    assert longer.step(batch(2))["lr"] == pytest.approx(0.01 * 6 / 8)


def test_an_empty_batch_updates_nothing(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    before = weights(learner)
    assert learner.step(TrainBatch((), 0))["updates"] == 0.0
    assert learner.logprobs([]) == {}
    assert same(weights(learner), before)


def test_gradients_are_clipped_to_the_norm_and_reported_before_it(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model, optimizer={"grad_clip": 1e-9, "eps": 1.0}), tiny_model, CPU)
    before = weights(learner)
    metrics = learner.step(batch(0))
    assert metrics["grad_norm"] > 1e-3
    # with eps 1 Adam's step is lr · g, and g has norm 1e-9
    moved = torch.cat([(a - before[n]).flatten() for n, a in weights(learner).items()])
    assert moved.abs().max() < 1e-8


def test_resuming_continues_bit_identically(tiny_model: str, tmp_path: Path) -> None:
    config = configured(tiny_model, algorithm={"epochs": 2, "minibatches": 2})
    whole = build_learner(config, tiny_model, CPU)
    for step in range(2):
        whole.step(batch(step))
    whole.save(str(tmp_path / "learner"))
    for step in range(2, 4):
        expected = whole.step(batch(step))
    resumed = build_learner(config, tiny_model, CPU)
    assert resumed.load(str(tmp_path / "learner")) == 2
    for step in range(2, 4):
        found = resumed.step(batch(step))
    assert same(weights(resumed), weights(whole))
    assert found == expected
    assert resumed.counters == whole.counters


def test_a_checkpoint_that_is_not_there_is_named(tiny_model: str, tmp_path: Path) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    with pytest.raises(CheckpointError, match=r"no learner\.pt"):
        learner.load(str(tmp_path))


def test_a_damaged_checkpoint_is_named(tiny_model: str, tmp_path: Path) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    (tmp_path / "learner.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="damaged"):
        learner.load(str(tmp_path))


def test_an_export_holds_the_learners_weights(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    first = learner.export()
    metrics = learner.step(batch(0))
    second = learner.export()
    assert first is not None
    assert second is not None
    assert (first.manifest.new_version, second.manifest.base_version, second.manifest.new_version) == (0, 0, 1)
    held = weights(learner)
    assert second.payload.keys() == held.keys()
    for name, tensor in held.items():
        assert torch.equal(decode(second.payload[name]), tensor)
        assert second.manifest.checksums[name] == checksum(tensor)
    assert second.manifest.nbytes == sum(t.numel() * 4 for t in held.values())
    assert all(first.manifest.checksums[name] != checksum(tensor) for name, tensor in held.items())
    check_movement(second.manifest, first.manifest, metrics, "float32")


def test_the_written_model_is_the_learners(tiny_model: str, tmp_path: Path) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    learner.step(batch(0))
    learner.save_model(str(tmp_path / "model"), tiny_model)
    again = dict(load(tmp_path / "model", "float32").named_parameters())
    assert same(again, weights(learner))


def test_the_reference_stays_where_the_policy_started(tiny_model: str) -> None:
    config = configured(tiny_model, algorithm={"kl": {"coef": 0.1, "kind": "k2"}})
    learner, samples = build_learner(config, tiny_model, CPU), batch(0).samples
    start = learner.logprobs(samples)
    below = {row: values - 1.0 for row, values in start.items()}
    ready = filled(TrainBatch(samples, 0), proximal_logprobs=start, ref_logprobs=below)
    # d = -1 on every token: k2 is 1/2
    assert learner.step(ready)["kl"] == pytest.approx(0.5, rel=1e-4)
    frozen, moved = learner.logprobs(samples, reference=True), learner.logprobs(samples)
    for row, values in start.items():
        np.testing.assert_array_equal(frozen[row], values)
        assert not np.array_equal(moved[row], values, equal_nan=True)


def without_old(data: TrainBatch) -> TrainBatch:
    return changed(data, proximal_logprobs=None)


REUSE: dict[str, dict[str, Any]] = {
    "one update": {},
    "one update, importance": {"importance": {"mode": "truncate"}},
    "two minibatches": {"minibatches": 2},
    "two epochs of two": {"epochs": 2, "minibatches": 2},
}


def with_engine(data: TrainBatch) -> TrainBatch:
    return changed(data, rollout_logprobs=lambda one: np.where(one.mask, -4.2, np.nan).astype(np.float32))


@pytest.mark.parametrize("algorithm", REUSE.values(), ids=REUSE.keys())
def test_proximal_logprobs_of_the_first_update_are_those_of_a_pass_before_it(
    tiny_model: str, algorithm: dict[str, Any]
) -> None:
    """The updates are equal up to rounding, and a step computes the log-probabilities that it was not given."""
    data, found = without_old(with_engine(batch(0, count=6))), []
    for reuse, given in ((True, False), (False, False), (False, True)):
        config = configured(tiny_model, algorithm=algorithm, learner={"reuse_first_forward": reuse})
        learner = build_learner(config, tiny_model, CPU)
        ready = filled(data, proximal_logprobs=learner.logprobs(data.samples)) if given else data
        metrics = learner.step(ready)
        needed = not given and (config.updates_per_step > 1 or config.importance_cap is not None)
        first_only = reuse and config.algorithm.minibatches == 1
        assert ("seconds/prepass" in metrics) == (needed and not first_only)
        metrics.pop("seconds/prepass", None)
        found.append((metrics, weights(learner)))
    for metrics, held in found[1:]:
        assert metrics == pytest.approx(found[0][0], rel=1e-4, abs=1e-5)
        for name, tensor in held.items():
            # Adam's step has the size of the rate whatever the gradient's: rounding may flip it for tiny gradients
            assert (tensor - found[0][1][name]).abs().mean() < 1e-4, name
    assert found[0][0]["updates"] == algorithm.get("epochs", 1) * algorithm.get("minibatches", 1)


def test_with_one_update_there_is_no_second_forward_pass(tiny_model: str) -> None:
    passes = []
    for reuse in (True, False):
        config = configured(
            tiny_model, algorithm={"importance": {"mode": "truncate"}}, learner={"reuse_first_forward": reuse}
        )
        learner = build_learner(config, tiny_model, CPU)
        seen: list[int] = []
        decoder = learner.engine.module.model.get_decoder()
        decoder.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        learner.step(without_old(with_engine(batch(0))))
        passes.append(len(seen))
    assert passes[1] == 2 * passes[0]


def test_given_old_and_reference_logprobs_are_kept(tiny_model: str) -> None:
    data = batch(0)
    assert data.samples[0].proximal_logprobs is not None
    same_again = filled(data, proximal_logprobs={0: data.samples[0].proximal_logprobs + 1})
    assert same_again.samples[0].proximal_logprobs is data.samples[0].proximal_logprobs
    config = configured(tiny_model, algorithm={"minibatches": 2, "kl": {"coef": 0.1}})
    learner = build_learner(config, tiny_model, CPU)
    given = filled(
        data,
        ref_logprobs={
            row: s.proximal_logprobs for row, s in enumerate(data.samples) if s.proximal_logprobs is not None
        },
    )
    assert "seconds/prepass" not in learner.step(given)
    # old log-probabilities of -4 are not the policy's own: the ratio is not 1
    assert learner.step(data)["ratio"] != pytest.approx(1.0, abs=1e-3)


def test_samples_of_another_version_are_trained_on_with_proximal_logprobs_and_refused_without(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    learner.step(batch(0))
    before = weights(learner)
    for version in (0, 2):
        older = of_version(batch(1), version)
        with pytest.raises(SelfCheckError, match=rf"sampled by policy version {version}, the learner is at version 1"):
            learner.step(without_old(older))
        assert same(weights(learner), before)
    assert (learner.counters.updates, learner.counters.version) == (1, 1)
    assert learner.step(of_version(batch(1), 0))["updates"] == 1.0
    assert not same(weights(learner), before)


def test_a_reference_that_is_lacking_is_computed_by_the_step(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model, algorithm={"kl": {"coef": 0.1, "kind": "k2"}}), tiny_model, CPU)
    metrics = learner.step(without_old(batch(0)))
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["seconds/prepass"] > 0
    assert learner.step(without_old(batch(1)))["kl"] > 0


def test_a_model_that_cannot_run_packed_runs_padded_and_says_so(
    tiny_model: str, caplog: pytest.LogCaptureFixture
) -> None:
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    assert (learner.passes.layout.packed, learner.passes.layout.share_prompts, caplog.messages) == (True, True, [])
    learner.engine.module.model.config.layer_types = ["full_attention", "sliding_attention"]
    module = LogprobModel(learner.engine.module.model)
    layout = layout_of(learner.config, module)
    assert (layout.packed, layout.share_prompts) == (False, False)
    assert caplog.messages == [
        "learner.layout: this model runs padded (it has layers of type 'sliding_attention'); set it to padded to "
        "silence this"
    ]
    caplog.clear()
    assert not layout_of(configured(tiny_model, learner={"layout": "padded"}), module).packed
    assert caplog.messages == []


def test_a_reference_that_was_not_loaded_is_not_replaced_by_the_policy(tiny_model: str) -> None:
    """Comparing the policy with itself would always report a divergence of 0."""
    learner = build_learner(configured(tiny_model), tiny_model, CPU)
    with pytest.raises(ValueError, match="reference"):
        learner.logprobs(batch(0).samples, reference=True)


def test_the_same_tokens_score_the_same_twice_whatever_the_models_dropout(tiny_model: str, tmp_path: Path) -> None:
    """A pre-pass with dropout would put noise into every ratio and into the comparison with the engine."""
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attention_dropout": 0.5}))
    learner = build_learner(configured(str(file.parent)), str(file.parent), CPU)
    samples = batch(0).samples
    first, second = learner.logprobs(samples), learner.logprobs(samples)
    for row, values in first.items():
        np.testing.assert_array_equal(values, second[row])
        # all tokens that were sampled have one, and no others
        np.testing.assert_array_equal(np.isfinite(values), samples[row].mask)


def test_small_updates_of_a_bfloat16_learner_add_up_or_it_is_refused(tiny_model: str) -> None:
    """`model.dtype`: "bfloat16 learners keep float32 masters". Without them 1 + 1e-3 stays 1 in bfloat16."""
    moved = {}
    for dtype in ("float32", "bfloat16"):
        try:
            config = configured(
                tiny_model,
                model={"path": tiny_model, "dtype": dtype},
                algorithm={"importance": {"mode": "off"}},
                optimizer={"lr": 1e-3, "schedule": "constant", "warmup_steps": 0},
            )
            learner = build_learner(config, tiny_model, CPU)
        except ConfigError:
            return
        rewarded = batch(0, count=2, advantage=1.0)
        for version in range(12):
            learner.step(of_version(without_old(rewarded), version))
        moved[dtype] = (weights(learner)["model.norm.weight"].float() - 1.0).abs().max().item()
    # Adam moves a weight by up to 1e-3 per update; bfloat16's steps next to 1 are 3.9e-3 below and 7.8e-3 above
    assert moved["float32"] > 8e-3
    assert moved["bfloat16"] > 0


def test_samples_with_and_without_engine_figures_may_share_a_batch(tiny_model: str) -> None:
    samples = list(batch(0).samples)
    samples[0] = dataclasses.replace(samples[0], rollout_logprobs=samples[0].proximal_logprobs)
    learner = build_learner(configured(tiny_model, learner={"micro_tokens": 1}), tiny_model, CPU)
    assert learner.step(TrainBatch(tuple(samples), 0))["updates"] == 1.0


def test_the_optimizer_is_built_as_configured() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    made = build_optimizer(Full(layer).trained(), OptimizerSection(lr=0.5, betas=(0.1, 0.2), eps=0.3, weight_decay=0.4))
    [group] = made.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.5, (0.1, 0.2), 0.3, 0.4)
    assert group["params"] == [layer.weight]


def test_an_update_with_too_long_a_gradient_is_left_out_and_counted(tiny_model: str) -> None:
    learner = build_learner(configured(tiny_model, optimizer={"skip_grad_norm": 1e-4}), tiny_model, CPU)
    before = weights(learner)
    found = learner.step(batch())
    assert found["grad_norm"] > 1e-4
    assert (found["skipped_updates"], learner.counters.updates) == (1.0, 1)
    assert same(before, weights(learner))


def test_a_limit_that_is_not_reached_changes_nothing(tiny_model: str) -> None:
    free = build_learner(configured(tiny_model), tiny_model, CPU)
    limited = build_learner(configured(tiny_model, optimizer={"skip_grad_norm": 1e4}), tiny_model, CPU)
    for step in range(3):
        assert free.step(batch(step)) == limited.step(batch(step))
    assert same(weights(free), weights(limited))


def test_clipping_is_told_by_epoch_and_begins_on_policy(tiny_model: str) -> None:
    settings = {"epochs": 3, "minibatch_size": 3, "clip": [1e-3, 1e-3]}
    learner = build_learner(configured(tiny_model, algorithm=settings), tiny_model, CPU)
    fresh = TrainBatch(without_old(batch(count=5)).samples, 1)
    found = learner.step(fresh)
    assert found["updates"] == 6.0  # ceil(5 / 3) per epoch
    clipped = [found[f"clip_frac/low/epoch_{e}"] + found[f"clip_frac/high/epoch_{e}"] for e in range(3)]
    assert clipped[0] < clipped[2]
    mean = sum(found[f"clip_frac/low/epoch_{e}"] for e in range(3)) / 3
    assert found["clip_frac/low"] == pytest.approx(mean)


@pytest.mark.parametrize(("samples", "expected"), [(0, 1), (1, 1), (3, 1), (4, 2), (7, 3)])
def test_minibatches_by_size_are_spread_evenly(tiny_model: str, samples: int, expected: int) -> None:
    learner = build_learner(configured(tiny_model, algorithm={"minibatch_size": 3}), tiny_model, CPU)
    updates = learner.plan(Samples.of(batch(count=samples).samples), 0)
    assert learner.config.minibatches(samples) == expected
    sizes = [len(update.indices) for update in updates]
    assert sum(sizes) == samples
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_a_resumed_optimizer_takes_the_settings_that_it_is_resumed_with() -> None:
    """torch's load_state_dict brings those of the checkpoint back, so that a new weight decay would have no effect."""
    import torch

    from rlpost.learner.torch_engine import settings_kept

    weight = torch.nn.Parameter(torch.ones(2))
    before = torch.optim.AdamW([{"params": [weight], "lr_ratio": 1.0}], lr=1.0, weight_decay=0.0, betas=(0.9, 0.99))
    weight.grad = torch.ones(2)
    before.step()
    again = torch.optim.AdamW([{"params": [weight], "lr_ratio": 4.0}], lr=0.1, weight_decay=0.5, betas=(0.8, 0.99))
    with settings_kept(again):
        again.load_state_dict(before.state_dict())
    [group] = again.param_groups
    assert (group["weight_decay"], group["betas"], group["lr_ratio"]) == (0.5, (0.8, 0.99), 4.0)
    assert torch.equal(again.state[weight]["exp_avg"], before.state[weight]["exp_avg"])
