"""Small updates in bfloat16 add up as in float32, for every tuning method and optimizer. Not covered: DeepSpeed, whose
masters tests/integration/test_learner_equivalence.py looks at, and optimizers of packages that are not installed.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.learner.build import build_learner
from rlpost.learner.policy import PolicyLearner
from rlpost.optim.masters import Masters
from rlpost.types import TrainBatch
from support.tuning_checks import ADAPTERS, METHODS, batch, configured

CPU = torch.device("cpu")
RATE = 1e-6
CASES = {
    name: change for name, change in {**METHODS, **ADAPTERS}.items() if "bf16" not in name and "sync" not in change
}
CASES["lora_muon"] = {"tuning": {"method": "lora"}, "optimizer": {"name": "muon"}}
CASES["ia3"] = {"tuning": {"method": "peft:ia3"}}


def test_a_master_keeps_what_its_parameter_rounds_away() -> None:
    # bfloat16 next to 1 has steps of 1/128 above and 1/256 below: 1 + 1/1024 stays 1, four times that is half a step
    stored = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    masters = Masters([("w", stored)])
    [(name, master)] = masters.owned
    assert (name, master.dtype) == ("w", torch.float32)
    seen = []
    for _ in range(5):
        with torch.no_grad():
            master.add_(torch.tensor([1 / 1024, 0.0]))
        masters.write_back()
        seen.append(stored[0].item())
    # 4/1024 is exactly between 1 and 1 + 1/128 and goes to the even one
    assert seen == [1.0, 1.0, 1.0, 1.0, 1 + 1 / 128]
    assert stored[1].item() == -2.0


def test_gradients_of_micro_batches_are_summed_in_float32_and_freed() -> None:
    stored = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    [(_, master)] = Masters([("w", stored)]).owned
    for size in (1.0, 1 / 512, 1 / 512):
        (stored * size).sum().backward()
        assert stored.grad is None
    assert master.grad is not None
    # in bfloat16 the two small ones would be lost
    assert master.grad.item() == 1.0 + 2 / 512


def test_what_is_float32_already_needs_no_master() -> None:
    held = nn.Parameter(torch.ones(2))
    masters = Masters([("w", held)])
    assert masters.owned == [("w", held)]
    assert masters.state() == {}


def test_masters_of_a_checkpoint_are_taken_and_absent_ones_follow_the_parameter() -> None:
    stored = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    masters = Masters([("w", stored)])
    masters.reset({"w": torch.tensor([1.001, 3.0])})
    assert masters.state()["w"].tolist() == pytest.approx([1.001, 3.0])
    masters.reset({})
    assert masters.state()["w"].tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError):
        masters.reset({"w": torch.ones(3)})


def small(folder: str, change: dict[str, Any], dtype: str) -> RunConfig:
    optimizer = {**change.get("optimizer", {}), "lr": RATE}
    quiet = {"algorithm": {"importance": {"mode": "off"}}, "model": {"path": folder, "dtype": dtype}}
    return configured(folder, {**change, **quiet, "optimizer": optimizer})


def owned(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    engine: Any = learner.engine
    return {name: p.detach().float().clone() for name, p in engine.masters.owned}


def steps(learner: PolicyLearner, first: int, count: int) -> None:
    for step in range(first, first + count):
        learner.step(batch(step))


def travelled(folder: str, change: dict[str, Any], dtype: str) -> tuple[float, float]:
    """Share of the owned entries that three updates move, and their mean distance in learning rates per update."""
    learner = build_learner(small(folder, change, dtype), folder, CPU)
    waited = learner.config.tuning.warmup_steps
    steps(learner, 0, waited)
    before = owned(learner)
    steps(learner, waited, 3)
    apart = torch.cat([(p - before[name]).abs().flatten() for name, p in owned(learner).items()])
    return float((apart > 0).float().mean()), float(apart.mean()) / (3 * RATE)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", CASES)
def test_updates_of_a_millionth_move_as_much_in_bfloat16_as_in_float32(tiny_model: str, name: str) -> None:
    (wanted, far), (share, found) = (travelled(tiny_model, CASES[name], dtype) for dtype in ("float32", "bfloat16"))
    assert share > 0.97 * wanted > 0.09
    assert found == pytest.approx(far, rel=0.1)


@pytest.mark.parametrize("name", ["lora", "subnetwork_hook", "lora_sb"])
def test_what_is_published_are_the_rounded_masters_and_a_resumed_run_has_the_same(
    tiny_model: str, tmp_path: Path, name: str
) -> None:
    config = small(tiny_model, CASES[name], "bfloat16")
    learner = build_learner(config, tiny_model, CPU)
    waited = config.tuning.warmup_steps
    steps(learner, 0, waited + 2)
    engine: Any = learner.engine
    trained = dict(engine.tuning.trained())
    masters = owned(learner)
    assert any(not torch.equal(masters[n], p.float()) for n, p in trained.items())
    assert all(torch.equal(masters[n].bfloat16(), p) for n, p in trained.items())
    learner.save(str(tmp_path))
    resumed = build_learner(config, tiny_model, CPU)
    resumed.load(str(tmp_path))
    assert all(torch.equal(masters[n], p) for n, p in owned(resumed).items())
    for one in (learner, resumed):
        steps(one, waited + 2, 2)
    assert all(torch.equal(p, owned(resumed)[n]) for n, p in owned(learner).items())


def test_a_run_saved_during_the_warm_up_trains_what_the_warm_up_makes(tiny_model: str, tmp_path: Path) -> None:
    """The start that LoRA-SB finds is not overwritten by masters that were made before."""
    config = small(tiny_model, ADAPTERS["lora_sb"], "bfloat16")
    learner = build_learner(config, tiny_model, CPU)
    learner.save(str(tmp_path))
    resumed = build_learner(config, tiny_model, CPU)
    resumed.load(str(tmp_path))
    for one in (learner, resumed):
        steps(one, 0, 2)
        cores = torch.cat([p.abs().flatten() for p in owned(one).values()])
        # a first full step of 1e-2 in each entry, and one update of 1e-6
        assert float(cores.max()) > 1e-3
        assert math.isfinite(float(cores.sum()))
    assert all(torch.equal(p, owned(resumed)[n]) for n, p in owned(learner).items())


def sabotaged(learner: PolicyLearner) -> None:
    """The optimizer's updates do not reach the model, as if it owned other tensors than those that are published."""
    engine: Any = learner.engine
    sound = engine.apply

    def apply(lr: float) -> Any:
        before = [p.detach().clone() for p in engine.module.parameters()]
        result = sound(lr)
        for parameter, value in zip(engine.module.parameters(), before, strict=True):
            parameter.data.copy_(value)
        return result

    engine.apply = apply


@pytest.mark.parametrize("rate", [RATE, 1e-3])
@pytest.mark.parametrize("name", ["full", "lora", "subnetwork", "subnetwork_hook", "miss"])
def test_an_update_that_is_lost_in_the_learner_is_found(tiny_model: str, name: str, rate: float) -> None:
    for dtype in ("float32", "bfloat16"):
        config = small(tiny_model, {**CASES[name], "selfcheck": {"parity_every": 1}}, dtype)
        config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": rate})})
        learner = build_learner(config, tiny_model, CPU)
        assert learner.step(batch(0))["moved"] > 0.98
        sabotaged(learner)
        if dtype == "float32" and name != "subnetwork":  # parameters are their own masters
            assert learner.step(batch(1))["moved"] == 0.0
        elif rate == 1e-3:
            with pytest.raises(SelfCheckError, match="are not what the optimizer's float32 masters round to"):
                steps(learner, 1, 5)
        else:  # bits change only once enough updates have added up
            with pytest.raises(SelfCheckError, match="are not what the optimizer's float32 masters round to"):
                steps(learner, 1, 30)


def test_batches_that_change_nothing_for_good_reasons_raise_no_alarm(tiny_model: str) -> None:
    change = {"tuning": {"method": "subnetwork", "subnetwork": {"mask": "random", "density": 1e-4, "engine": "hook"}}}
    learner = build_learner(
        small(tiny_model, {**change, "selfcheck": {"parity_every": 1}}, "bfloat16"), tiny_model, CPU
    )
    # at 12 of 120,000 entries the sample finds few or none
    assert learner.step(batch(0)).get("moved", 1.0) == 1.0
    quiet = small(tiny_model, {"selfcheck": {"parity_every": 1}, "algorithm": {"kl": {"coef": 0.0}}}, "bfloat16")
    learner = build_learner(quiet, tiny_model, CPU)
    still = TrainBatch(tuple(dataclasses.replace(s, advantages=s.advantages * 0) for s in batch(0).samples), 0)
    metrics = learner.step(still)
    assert metrics["grad_norm"] == 0.0
    assert "moved" not in metrics
    # nothing was sampled, and a norm that is not finite
    assert "moved" not in learner.step(TrainBatch((), 1))
    bad = TrainBatch(tuple(dataclasses.replace(s, advantages=s.advantages * math.nan) for s in batch(2).samples), 2)
    metrics = learner.step(bad)
    assert metrics["skipped_updates"] == 1.0
    assert "moved" not in metrics


def test_the_end_of_a_cosine_raises_no_alarm(tiny_model: str) -> None:
    """The last rate of 1,000 steps is 2.5e-6 of the peak: too small for every entry that the layer norms have."""
    change = {
        "run": {"steps": 1000},
        "tuning": {"method": "subnetwork", "subnetwork": {"targets": ["norm"], "mask": "random", "density": 1.0}},
    }
    config = small(tiny_model, {**change, "optimizer": {"schedule": "cosine"}}, "bfloat16")
    learner = build_learner(config, tiny_model, CPU)
    assert learner.step(batch(0))["moved"] == 1.0
    last = dataclasses.replace(batch(1), step=999)
    metrics = learner.step(last)
    assert 0 < metrics["lr"] < 1e-11
    assert "moved" not in metrics
