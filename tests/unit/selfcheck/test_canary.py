"""Every failure that the canary must catch, planted. Not covered: real engines and learners."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlpost.algorithms.credit import train_samples
from rlpost.errors import SelfCheckError
from rlpost.protocols import ApplyReport
from rlpost.selfcheck.canary import LARGEST, check_arrival, check_masters, check_movement, check_probe, tolerance
from rlpost.sync.codec import checksum
from rlpost.trajectory import one_turn
from rlpost.types import WeightManifest, WeightUpdate
from support.fakes import FakeEngine

SUMS = {"a": "11", "b": "22", "c": "33"}
FIRST = WeightManifest(0, 1, "full", SUMS, 12, {})
SECOND = WeightManifest(1, 2, "full", {**SUMS, "b": "99"}, 12, {})
GOOD = ApplyReport(2, dict(SECOND.checksums), 1, 0.1)
MOVED = {"updates": 1.0, "grad_norm": 0.5, "lr": 1e-3, "moved": 1.0}
PROBE = one_turn((1, 2), (5, 6), "ab", logprobs=(-1.0, -2.0), finish="length", version=2)


def test_a_healthy_sync_passes_and_counts() -> None:
    assert check_arrival(SECOND, [GOOD, GOOD], FIRST) == {"canary/tensors": 3.0, "canary/changed_tensors": 1.0}
    first = ApplyReport(1, SUMS, 3, 0.1)
    assert check_arrival(FIRST, [first], None) == {"canary/tensors": 3.0, "canary/changed_tensors": 3.0}


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (replace(GOOD, version=1), "engine 1 serves version 1, version 2 was published"),
        (replace(GOOD, checksums={**SECOND.checksums, "a": "missing"}), r"holds nothing of 'a' \(1 of 3 tensors"),
        (replace(GOOD, checksums={"a": "11", "b": "99"}), r"holds nothing of 'c' \(1 of 3"),
        (replace(GOOD, checksums={}), r"holds nothing of 'a' \(3 of 3"),
        # the engine still has what was published before
        (replace(GOOD, checksums=SUMS), r"holds other bytes than published for 'b' \(1 of 3"),
    ],
)
def test_a_sync_that_did_not_arrive_is_caught(report: ApplyReport, message: str) -> None:
    with pytest.raises(SelfCheckError, match=message):
        check_arrival(SECOND, [GOOD, report], FIRST)


def test_one_flipped_bit_is_caught() -> None:
    weights = torch.arange(64, dtype=torch.float32)
    manifest = WeightManifest(0, 1, "full", {"w": checksum(weights)}, 256, {})
    held = weights.clone()
    held.view(torch.int32)[17] ^= 1
    assert (held != weights).sum() == 1
    with pytest.raises(SelfCheckError, match="other bytes"):
        check_arrival(manifest, [ApplyReport(1, {"w": checksum(held)}, 1, 0.0)], None)


def test_a_sync_of_no_tensor_or_to_no_engine_fails() -> None:
    """A learner that publishes no tensor, or a cluster without engines, must not look healthy."""
    empty = WeightManifest(0, 1, "full", {}, 0, {})
    with pytest.raises(SelfCheckError):
        check_arrival(empty, [ApplyReport(1, {}, 0, 0.0)], None)


def test_weights_that_move_pass() -> None:
    for dtype in ("float32", "bfloat16"):
        check_movement(SECOND, FIRST, MOVED, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_update_that_moved_no_master_is_caught(dtype: str) -> None:
    with pytest.raises(
        SelfCheckError, match=r"norm 0\.5 and learning rate 0\.001 moved no entry of what the optimizer"
    ):
        check_movement(SECOND, FIRST, {**MOVED, "moved": 0.0}, dtype)


def test_masters_that_move_without_a_published_byte_are_caught_in_float32() -> None:
    still = replace(FIRST, base_version=1, new_version=2)
    with pytest.raises(SelfCheckError, match=r"gradient norm 0.5 and learning rate 0.001 changed no published byte"):
        check_movement(still, FIRST, MOVED, "float32")
    # bfloat16 rounds small updates away
    check_movement(still, FIRST, MOVED, "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "change",
    [
        {"grad_norm": 0.0, "moved": 0.0},
        {"grad_norm": math.nan, "moved": 0.0},
        {"grad_norm": math.inf, "moved": 0.0},
        {"updates": 0.0, "moved": 0.0},
        {"lr": 0.0, "moved": 0.0},
    ],
)
def test_no_movement_is_required_where_none_is_expected(change: dict[str, float], dtype: str) -> None:
    check_movement(replace(FIRST, new_version=2), FIRST, {**MOVED, **change}, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_movement_is_required_where_no_step_is_large_enough_to_see(dtype: str) -> None:
    """The last rates of a cosine are below 1e-11."""
    figures = {name: value for name, value in MOVED.items() if name != "moved"}
    check_movement(replace(FIRST, new_version=2), FIRST, {**figures, "lr": 1e-12}, dtype)


def test_a_parameter_that_is_its_rounded_master_passes() -> None:
    master = torch.tensor([[1.0, 1.001], [-2.0, 3.14159]])
    check_masters("w", master.bfloat16(), master)
    check_masters("w", master.clone(), master)
    check_masters("w", master.bfloat16().flatten(), master)


def test_a_parameter_that_is_not_its_rounded_master_is_named() -> None:
    master = torch.tensor([1.0, 1.001, 1.01])
    with pytest.raises(SelfCheckError, match=r"1 of 3 trained entries of 'a\.w' are not what .* masters round to"):
        check_masters("a.w", torch.ones(3).bfloat16(), master)


def test_a_batch_without_samples_has_no_gradient_figures_and_passes() -> None:
    check_movement(replace(FIRST, new_version=2), FIRST, {"updates": 0.0}, "float32")


def test_a_healthy_probe_passes_with_its_figures() -> None:
    found = check_probe([PROBE], [np.float32([-1.0, -2.0005])], LARGEST["float32"])
    # |0|, |0.0005|: mean 0.00025
    assert found["canary/probe_mean"] == pytest.approx(2.5e-4, rel=1e-3)
    assert found["canary/probe_max"] == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize("learner", [[-1.0, -2.01], [-1.0, math.nan], [-1.0, -math.inf]])
def test_an_engine_that_computes_with_other_weights_is_caught(learner: list[float]) -> None:
    with pytest.raises(SelfCheckError, match="engine 3 and learner differ by"):
        check_probe([PROBE], [np.array(learner)], 1e-3, engine=3)


def test_a_tolerance_is_a_limit_and_not_a_strict_one() -> None:
    check_probe([PROBE], [np.array([-1.5, -2.5])], 0.5)


@pytest.mark.parametrize(
    ("completions", "learner"),
    [
        ([replace(PROBE, logprobs=None)], [np.array([-1.0, -2.0])]),
        ([PROBE], [np.array([-1.0])]),
        ([], []),
    ],
    ids=["the engine reports no figures", "another number of tokens", "no probe at all"],
)
def test_a_probe_that_cannot_be_compared_fails_the_check(completions: list, learner: list) -> None:
    with pytest.raises(SelfCheckError):
        check_probe(completions, learner, 1e-3)


def test_probes_become_samples_that_train_nothing() -> None:
    [sample] = train_samples(PROBE)
    assert (sample.token_ids.tolist(), sample.prompt_tokens) == ([1, 2, 5, 6], 2)
    assert sample.advantages.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert sample.mask.tolist() == [False, False, True, True]


def test_the_fake_engine_holds_what_was_published() -> None:
    engine = FakeEngine(lambda name, rng: "x")
    assert engine.apply(WeightUpdate(FIRST, {})).changed == 3
    report = engine.apply(WeightUpdate(SECOND, {}))
    assert report.changed == 1
    assert check_arrival(SECOND, [report], FIRST)["canary/changed_tensors"] == 1.0


def test_the_limit_follows_what_the_first_probe_showed() -> None:
    assert tolerance("bfloat16", None) == 0.3
    assert tolerance("bfloat16", 1e-3) == 0.02
    assert tolerance("bfloat16", 0.03) == pytest.approx(0.15)
    assert tolerance("bfloat16", 0.2) == 0.3
    assert tolerance("float32", None) == tolerance("float32", 5e-7) == tolerance("float32", 9e-4) == 1e-3
