"""The gradient depends on the batch only: one or two ranks, ZeRO 0 to 3, any micro-batch size give the same one.

The batch is off-policy on purpose: an on-policy loss is near zero whatever is wrong with it. Real DeepSpeed, real
gloo, real processes. Not covered: NCCL, more than two ranks.
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpost.actors.workers import free_port
from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.learner.samples import Samples
from rlpost.selfcheck.invariance import check
from rlpost.types import TrainBatch
from support import recorded
from support.trajectories import plain

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]
STAGES = (0, 1, 2, 3)
ON_CPU = {"device": "cpu"}
OFFLOADED = (
    (2, {"offload_optimizer": ON_CPU}),
    (3, {"offload_optimizer": ON_CPU}),
    (3, {"offload_optimizer": ON_CPU, "offload_parameters": ON_CPU}),
)


def measure(learner, batch) -> dict:
    """Gradients of a first update on dialogues and on the batch, then log-probabilities and the KL to the reference
    after more updates.
    """
    dialogues = gradients_of(learner, recorded.dialogues())
    learner.engine.discard()
    gradients = gradients_of(learner, batch)
    norms = [learner.engine.apply(1e-3).grad_norm]
    for _ in range(2):
        norms.append(learner.step(batch)["grad_norm"])
    # for this batch the learner computes the reference log-probabilities; the recorded one has them already
    apart = learner.step(recorded.grouped(version=learner.counters.version))["kl"]
    logprobs = learner.logprobs(batch.samples)
    return {"gradients": gradients, "dialogues": dialogues, "logprobs": logprobs, "norms": norms, "kl": apart}


def gradients_of(learner, batch) -> dict[str, torch.Tensor]:
    samples = Samples.of(batch.samples)
    update = learner.plan(samples, batch.step)[0]
    learner.passes.accumulate(samples, update, learner.counters.version)
    return {name: gradient.cpu().clone() for name, gradient in learner.engine.gradients()}


def poison(learner, batch) -> dict:
    """Train on a batch with a NaN advantage: whether it was skipped, and whether any weight moved."""
    before = {name: p.float().cpu().clone() for name, p in learner.weights()}
    samples = list(batch.samples)
    bad = samples[0].advantages.copy()
    bad[samples[0].prompt_tokens] = float("nan")
    samples[0] = dataclasses.replace(samples[0], advantages=bad)
    learner.step(TrainBatch(tuple(samples), 0))
    after = {name: p.float().cpu() for name, p in learner.weights()}
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    healthy = learner.step(batch)["grad_norm"]
    again = {name: p.float().cpu() for name, p in learner.weights()}
    recovered = any(not torch.equal(before[name], again[name]) for name in before)
    return {"skipped": learner.counters.skipped, "moved": moved, "next_norm": healthy, "recovered": recovered}


def held(learner) -> dict[str, torch.Tensor]:
    return {name: p.float().cpu().clone() for name, p in learner.weights()}


def examined(model: str, dtype: str, world: int, **settings) -> dict:
    """Gradient figures of the first batch, whether training afterwards is bit-identical, and the figures with the loss
    halved.
    """
    kept, norms = [], []
    for look in (False, True):
        learner = build(model, fast(model, dtype, world, **settings))
        first = recorded.grouped()
        figures = learner.examine(first, plain(first.samples)) if look else None
        norms.append(
            [
                learner.step(data)["grad_norm"]
                for data in (recorded.grouped(), recorded.batch(), recorded.grouped(version=2))
            ]
        )
        kept.append(held(learner))
    found = {"same": all(torch.equal(kept[0][n], kept[1][n]) for n in kept[0]), "norms": norms, "figures": figures}
    sound = learner.engine.backward
    learner.engine.backward = lambda loss, last: sound(loss * 0.5, last)
    later = recorded.grouped(version=learner.counters.version)
    found["halved"] = learner.examine(later, plain(later.samples))
    return found


def reused(model: str, dtype: str, world: int, **settings) -> list[dict]:
    """Metrics and weights after several updates, with old log-probabilities from the first forward pass and from a
    separate one before it.
    """
    result = []
    for reuse in (True, False):
        config = fast(model, dtype, world, reuse_first_forward=reuse, **settings)
        config = config.model_copy(update={"algorithm": config.algorithm.model_copy(update={"minibatches": 2})})
        learner = build(model, config)
        metrics = learner.step(recorded.grouped())
        metrics.pop("seconds/prepass")
        result.append({"metrics": metrics, "weights": held(learner)})
    return result


def limited(model: str, dtype: str, world: int, **settings) -> dict:
    """Weights after two updates: without a limit on the gradient norm, with one far above it, and with one below it."""
    found: dict = {}
    for name, limit in (("free", None), ("far", 1e6), ("below", 1e-9)):
        config = fast(model, dtype, world, **settings)
        optimizer = config.optimizer.model_copy(update={"skip_grad_norm": limit})
        learner = build(model, config.model_copy(update={"optimizer": optimizer}))
        before = held(learner)
        metrics = [learner.step(recorded.batch()) for _ in range(2)]
        found[name] = {
            "weights": held(learner),
            "moved": any(not torch.equal(before[n], p) for n, p in held(learner).items()),
            "norm": metrics[0]["grad_norm"],
            "skipped": learner.counters.skipped,
        }
    return found


def lost(model: str, dtype: str, world: int, **settings) -> dict:
    """The share that a healthy update moves, and what a learner says whose parameters do not follow its masters."""
    from deepspeed import zero

    learner = build(model, fast(model, dtype, world, **settings))
    healthy = learner.step(recorded.grouped())["moved"]
    sound, parameters = learner.engine.apply, list(learner.engine.module.parameters())

    def gathered():
        return zero.GatheredParameters(parameters, modifier_rank=0) if learner.engine.stage == 3 else nullcontext()

    def apply(lr: float):
        with gathered():
            before = [one.detach().clone() for one in parameters]
        result = sound(lr)
        with gathered():
            for one, value in zip(parameters, before, strict=True):
                one.data.copy_(value)
        return result

    learner.engine.apply = apply
    try:
        said = f"moved {learner.step(recorded.grouped(version=1))['moved']}"
    except SelfCheckError as error:
        said = str(error)
    return {"healthy": healthy, "said": said}


RANDOM = {"mask": "random", "density": 0.2}
TUNED: dict[str, tuple[dict, tuple[int, ...]]] = {
    "lora": ({"method": "lora", "lora": {"r": 4}}, STAGES),
    "hook": ({"method": "subnetwork", "subnetwork": {**RANDOM, "engine": "hook"}}, STAGES),
    "hook_gradient": ({"method": "subnetwork", "subnetwork": {"density": 0.2, "engine": "hook"}}, (0, 2)),
    "compact_gradient": ({"method": "subnetwork", "subnetwork": {"density": 0.2}}, (0,)),
    "lora_sb": ({"method": "lora_xs", "lora_xs": {"r": 4, "init": "gradient", "init_lr": 1e-3}}, (0,)),
}
"""Tuning methods and the ZeRO stages they run at; the last two run on plain torch, whose ranks sum their gradients."""


def tuned(model: str, dtype: str, world: int, folder: str) -> dict:
    """The policy by method and stage: before, after three updates, and after the last of them on a resumed learner."""
    found: dict = {}
    for name, (method, stages) in TUNED.items():
        for stage in stages:
            config = recorded.config(
                model,
                model={"path": model, "dtype": dtype},
                tuning=method,
                learner={"workers": world, "micro_tokens": 60, "zero_stage": stage},
            )
            learner = build(model, config)
            steps = config.tuning.warmup_steps + 2
            before = held(learner)
            for version in range(steps):
                learner.step(recorded.grouped(version=version))
            learner.save(f"{folder}/{name}-{stage}")
            learner.step(recorded.batch())
            again = build(model, config)
            again.load(f"{folder}/{name}-{stage}")
            again.step(recorded.batch())
            found[name, stage] = {"before": before, "after": held(learner), "resumed": held(again)}
    return found


def fast(model: str, dtype: str, world: int, **settings) -> RunConfig:
    learner = {"workers": world, "micro_tokens": 60, "logprob_chunk": 5, **settings}
    return recorded.config(model, model={"path": model, "dtype": dtype}, learner=learner)


def masters(learner) -> float:
    """Share of weights whose float32 master differs from the bfloat16 weight."""
    from deepspeed.utils import safe_get_full_fp32_param

    apart = total = 0
    for _, p in learner.engine.module.model.named_parameters():
        full = safe_get_full_fp32_param(p)
        if full is not None:
            apart += int((full != full.bfloat16().float()).sum())
            total += full.numel()
    return apart / max(total, 1)


def build(model: str, config: RunConfig, rank: int = 0):
    from rlpost.learner.build import build_learner

    return build_learner(config, model, device=torch.device("cpu"))


def worker(rank: int, world: int, port: int, model: str, out: str, dtype: str) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
        GLOO_SOCKET_IFNAME="lo",
    )
    torch.set_num_threads(1)
    batch = recorded.batch()
    for stage in STAGES:
        config = recorded.config(
            model,
            model={"path": model, "dtype": dtype},
            learner={"workers": world, "zero_stage": stage, "micro_tokens": 40, "logprob_chunk": 7},
        )
        learner = build(model, config)
        found = measure(learner, batch)
        found["poison"] = poison(learner, batch)
        found["masters"] = masters(learner) if dtype == "bfloat16" else None
        found["examined"] = examined(model, dtype, world, zero_stage=stage)
        found["reused"] = reused(model, dtype, world, zero_stage=stage) if dtype == "float32" else None
        found["lost"] = lost(model, dtype, world, zero_stage=stage)
        found["limited"] = limited(model, dtype, world, zero_stage=stage)
        torch.save(found, f"{out}/{world}-{stage}-{rank}.pt")
    torch.save(tuned(model, dtype, world, out), f"{out}/{world}-tuned-{rank}.pt")
    # DeepSpeed offloads only what is sharded: the optimizer from stage 2 on, the parameters at stage 3
    for stage, offload in OFFLOADED if dtype == "float32" else ():
        learner = build(model, fast(model, dtype, world, zero_stage=stage, **offload))
        found = {
            "measured": measure(learner, batch),
            "examined": examined(model, dtype, world, zero_stage=stage, **offload),
        }
        torch.save(found, f"{out}/{world}-{stage}-{rank}-{len(offload)}.pt")
    learner.engine.close()


def run(world: int, model: str, out: Path, dtype: str) -> None:
    arguments = (world, free_port("127.0.0.1"), model, str(out), dtype)
    torch.multiprocessing.spawn(worker, arguments, nprocs=world, join=True)


def read(out: Path, world: int, stage: int) -> dict:
    parts = [torch.load(out / f"{world}-{stage}-{rank}.pt", weights_only=False) for rank in range(world)]
    logprobs = {row: values for part in parts for row, values in part["logprobs"].items()}
    return {**parts[0], "logprobs": logprobs}


@pytest.fixture(scope="module")
def oracle(tiny_model: str) -> dict:
    config = recorded.config(tiny_model, learner={"engine": "torch", "micro_tokens": 10**6})
    return measure(build(tiny_model, config), recorded.batch())


@pytest.fixture(scope="module")
def measured(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    for world in (1, 2):
        run(world, tiny_model, out, "float32")
    return out


@pytest.fixture(scope="module")
def in_bfloat16(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bfloat16")
    run(1, tiny_model, out, "bfloat16")
    return out


@pytest.mark.parametrize("stage", STAGES)
def test_a_bfloat16_learner_keeps_float32_masters_and_stays_near_the_float32_policy(
    oracle: dict, in_bfloat16: Path, stage: int
) -> None:
    found = read(in_bfloat16, 1, stage)
    assert found["masters"] > 0.1
    pairs = [(found["logprobs"][row], expected) for row, expected in oracle["logprobs"].items()]
    apart = np.concatenate([np.abs(a - b)[np.isfinite(b)] for a, b in pairs])
    assert apart.mean() < 0.02
    # a token whose ratio rounds to the other side of the clip (0.7994 and 0.8002) gets one more update: 0.25 nats
    assert (apart > 0.1).sum() <= 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_non_finite_update_is_skipped_counted_and_leaves_no_trace(
    measured: Path, in_bfloat16: Path, stage: int, dtype: str
) -> None:
    for world, folder in ((1, in_bfloat16),) if dtype == "bfloat16" else ((1, measured), (2, measured)):
        found = read(folder, world, stage)["poison"]
        assert found["skipped"] == 1
        assert found["moved"] == []
        assert 0 < found["next_norm"] < 1e3
        assert found["recovered"]


def test_the_recorded_batch_exercises_the_loss(oracle: dict) -> None:
    for kind in ("gradients", "dialogues"):
        norm = torch.cat([g.flatten() for g in oracle[kind].values()]).norm()
        assert norm > 0.1


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_do_not_depend_on_ranks_and_sharding(oracle: dict, measured: Path, world: int, stage: int) -> None:
    for kind in ("gradients", "dialogues"):
        found = read(measured, world, stage)[kind]
        assert found.keys() == oracle[kind].keys()
        for name, expected in oracle[kind].items():
            torch.testing.assert_close(
                found[name], expected, atol=1e-6, rtol=1e-4, msg=lambda m, n=(kind, name): f"{n}: {m}"
            )


def worlds(dtype: str, measured: Path, in_bfloat16: Path) -> list[tuple[int, Path]]:
    return [(1, in_bfloat16)] if dtype == "bfloat16" else [(1, measured), (2, measured)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_sound_learner_passes_the_invariance_check_and_trains_on_bit_identically(
    measured: Path, in_bfloat16: Path, stage: int, dtype: str
) -> None:
    for world, folder in worlds(dtype, measured, in_bfloat16):
        found = read(folder, world, stage)["examined"]
        metrics = check(found["figures"], dtype)
        assert metrics.keys() == {"invariance/micro_batching"} | ({"invariance/reference"} if stage < 3 else set())
        assert max(metrics.values()) < (1e-5 if dtype == "float32" else 0.03)
        assert found["same"]
        assert found["norms"][0] == found["norms"][1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_engine_that_averages_over_two_where_it_should_add_is_found(
    measured: Path, in_bfloat16: Path, stage: int, dtype: str
) -> None:
    for world, folder in worlds(dtype, measured, in_bfloat16):
        with pytest.raises(
            SelfCheckError, match=r"gradient of the learner is 0\.(5|499\d|500\d) times that of plain torch"
        ):
            check(read(folder, world, stage)["examined"]["halved"], dtype)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_proximal_logprobs_found_on_one_rank_reach_the_rank_that_needs_them(
    measured: Path, world: int, stage: int
) -> None:
    reused, before = read(measured, world, stage)["reused"]
    assert reused["metrics"] == pytest.approx(before["metrics"], rel=1e-4, abs=1e-6)
    for name, weights in before["weights"].items():
        # Adam's step has the size of the rate, 1e-3, whatever the gradient's
        torch.testing.assert_close(reused["weights"][name], weights, atol=2e-5, rtol=0)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("stage", "offload"), OFFLOADED)
def test_offloading_changes_no_figure(oracle: dict, measured: Path, world: int, stage: int, offload: dict) -> None:
    parts = [torch.load(measured / f"{world}-{stage}-{r}-{len(offload)}.pt", weights_only=False) for r in range(world)]
    found, looked = parts[0]["measured"], parts[0]["examined"]
    for name, expected in oracle["gradients"].items():
        torch.testing.assert_close(found["gradients"][name], expected, atol=1e-6, rtol=1e-4)
    assert found["norms"] == pytest.approx(oracle["norms"], rel=1e-4)
    assert looked["same"]
    assert max(check(looked["figures"], "float32").values()) < 1e-5


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_updates_give_the_same_policy_and_the_same_distance_from_the_reference(
    oracle: dict, measured: Path, world: int, stage: int
) -> None:
    found = read(measured, world, stage)
    assert found["norms"] == pytest.approx(oracle["norms"], rel=1e-4)
    assert found["kl"] == pytest.approx(oracle["kl"], rel=1e-3)
    assert oracle["kl"] > 0.01
    assert sorted(found["logprobs"]) == sorted(oracle["logprobs"])
    for row, expected in oracle["logprobs"].items():
        assert found["logprobs"][row] == pytest.approx(expected, abs=1e-5, nan_ok=True)
        np.testing.assert_array_equal(np.isfinite(expected), recorded.batch().samples[row].mask)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", [1, 2])
def test_a_gradient_over_the_limit_is_left_out_and_one_below_it_is_applied_as_ever(
    measured: Path, world: int, stage: int
) -> None:
    found = read(measured, world, stage)["limited"]
    free, far, below = found["free"], found["far"], found["below"]
    assert (free["skipped"], far["skipped"], below["skipped"]) == (0, 0, 2)
    assert (free["moved"], far["moved"], below["moved"]) == (True, True, False)
    assert all(torch.equal(free["weights"][name], value) for name, value in far["weights"].items())
    assert below["norm"] == pytest.approx(free["norm"], rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_the_limit_holds_in_bfloat16(in_bfloat16: Path, stage: int) -> None:
    found = read(in_bfloat16, 1, stage)["limited"]
    assert (found["far"]["skipped"], found["below"]["skipped"], found["below"]["moved"]) == (0, 2, False)
    assert all(torch.equal(found["free"]["weights"][n], value) for n, value in found["far"]["weights"].items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES)
def test_updates_that_do_not_reach_the_parameters_are_found(
    measured: Path, in_bfloat16: Path, stage: int, dtype: str
) -> None:
    for world, folder in worlds(dtype, measured, in_bfloat16):
        found = read(folder, world, stage)["lost"]
        assert found["healthy"] == 1.0
        # unsharded float32 parameters are their own masters
        own = stage == 0 and dtype == "float32"
        assert ("moved 0.0" if own else "are not what the optimizer's float32 masters round to") in found["said"]


@pytest.fixture(scope="module")
def alone(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The results of each method on one rank of plain torch."""
    found = {}
    for name, (method, _) in TUNED.items():
        config = recorded.config(tiny_model, tuning=method, learner={"engine": "torch", "micro_tokens": 10**6})
        learner = build(tiny_model, config)
        for version in range(config.tuning.warmup_steps + 2):
            learner.step(recorded.grouped(version=version))
        learner.step(recorded.batch())
        found[name] = held(learner)
    return found


@pytest.mark.parametrize(("name", "stage"), [(name, stage) for name, (_, stages) in TUNED.items() for stage in stages])
def test_a_tuning_method_gives_the_same_policy_on_any_ranks_and_resumed(
    alone: dict, measured: Path, in_bfloat16: Path, name: str, stage: int
) -> None:
    for world in (1, 2):
        found = torch.load(measured / f"{world}-tuned-0.pt", weights_only=False)[name, stage]
        assert any(not torch.equal(found["before"][n], p) for n, p in found["after"].items())
        assert all(torch.equal(found["resumed"][n], p) for n, p in found["after"].items())
        for n, expected in alone[name].items():
            # Adam's step has the size of the rate, 1e-3, whatever the gradient's
            torch.testing.assert_close(found["after"][n], expected, atol=1e-4, rtol=0, msg=lambda m, n=n: f"{n}: {m}")
    found = torch.load(in_bfloat16 / "1-tuned-0.pt", weights_only=False)[name, stage]
    assert all(torch.equal(found["resumed"][n], p) for n, p in found["after"].items())


@pytest.mark.parametrize("stage", STAGES)
def test_masked_gradients_leave_the_other_entries_alone(measured: Path, in_bfloat16: Path, stage: int) -> None:
    for folder in (measured, in_bfloat16):
        found = torch.load(folder / "1-tuned-0.pt", weights_only=False)["hook", stage]
        moved = {n: p != found["before"][n] for n, p in found["after"].items()}
        share = sum(int(m.sum()) for m in moved.values()) / sum(m.numel() for m in moved.values())
        assert 0.1 < share <= 0.2001
