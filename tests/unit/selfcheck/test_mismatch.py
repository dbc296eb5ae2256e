"""Classes of position, split, limits and evidence, by hand.

Not covered: real runs (tests/unit/loop/test_trained_tokens.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rlpost.errors import SelfCheckError
from rlpost.selfcheck.evidence import Evidence
from rlpost.selfcheck.mismatch import (
    CLASSES,
    cause,
    check_step,
    differences,
    limit_of,
    position_classes,
    split,
)
from rlpost.types import Differences, Surprise, UpdateRecord
from support.trajectories import sample


def of(*values: float) -> Differences:
    d = np.array(values)
    return Differences(len(d), d.sum(), np.abs(d).sum(), np.square(d).sum(), np.expm1(d).sum())


def record(
    epoch: int = 0, surprise: Surprise | None = None, untrained: int = 0, **by_class: Differences
) -> UpdateRecord:
    return UpdateRecord(epoch, epoch == 0, (0,), by_class, untrained, surprise or Surprise(), {})


def said_by(
    evidence: Evidence, one: UpdateRecord, numerics: float = 0.0, whole: bool = False, prompts: Sequence[bytes] = ()
) -> str:
    """What a further step ends the run with; empty if it does not."""
    try:
        evidence.add([one], numerics=numerics, whole=whole, prompts=prompts)
    except SelfCheckError as error:
        return str(error)
    return ""


def names(classes: np.ndarray) -> list[str]:
    return [CLASSES[c] if c >= 0 else "-" for c in classes]


def test_each_token_belongs_to_the_first_class_that_fits() -> None:
    one = sample([1, 2], [2, 7, 7, 9], rollout=[-1.0] * 4)
    assert names(position_classes(one, 0)) == ["-", "-", "first", "inner", "repeated", "last"]
    turns = sample([1, 2], [5, 6, 8, 8, 5, 9], mask=[True, True, False, False, True, True], rollout=[-1.0] * 6)
    rollout = np.where(turns.mask, np.float32(-1.0), np.float32(np.nan))
    object.__setattr__(turns, "rollout_logprobs", rollout)
    object.__setattr__(turns, "ended", True)
    assert names(position_classes(turns, 0)) == ["-", "-", "first", "inner", "-", "-", "border", "end"]
    single = sample([1], [4], rollout=[-1.0])
    assert names(position_classes(single, 0)) == ["-", "first"]
    assert names(position_classes(single, 3)) == ["-", "stale"]


def test_what_the_engine_sampled_counts_not_what_the_mask_says() -> None:
    one = sample([1], [4, 5], mask=[True, False], rollout=[-1.0, -2.0])
    one.versions[2] = 0
    assert names(position_classes(one, 0)) == ["-", "first", "last"]


def test_differences_are_sums_by_class_over_tokens_that_the_loss_has() -> None:
    classes = np.array([-1, 0, 5, 5], np.int8)
    found = differences(classes, np.float32([0, -1, -2, np.nan]), np.float32([0, -1.5, -1.75, -1]))
    assert found.keys() == {"first", "inner"}
    assert found["first"] == Differences(1, 0.5, 0.5, 0.25, pytest.approx(math.exp(0.5) - 1))
    assert found["inner"] == Differences(1, -0.25, 0.25, 0.0625, pytest.approx(math.exp(-0.25) - 1))


def test_the_split_by_hand() -> None:
    # the learner gives 0.8 to what the engine sampled from, at every token: d = log 0.8
    everything = split({"inner": of(*[math.log(0.8)] * 1000)})
    assert everything.truncation == pytest.approx(-math.log(0.8))
    assert everything.numerics == pytest.approx(0.0, abs=1e-9)
    # rounding of both signs leaves nothing out
    assert split({"inner": of(*[0.1, -0.1] * 500)}).truncation == 0.0
    stale = split({"inner": of(*[0.1, -0.1] * 5), "stale": of(*[0.5] * 10)})
    assert (stale.total, stale.staleness, stale.numerics) == (
        pytest.approx(0.3),
        pytest.approx(0.2),
        pytest.approx(0.1),
    )


def test_a_step_above_the_limit_ends_the_run_with_its_cause() -> None:
    healthy = record(inner=of(*[1e-4, -1e-4] * 50))
    assert check_step([healthy], 1e-3)["mismatch"] == pytest.approx(1e-4)
    for updates, said in [
        ([record(inner=of(*[math.log(0.7)] * 100))], "the engine samples from 70.00% of the distribution"),
        (
            [record(first=of(-2.0, -3.0), inner=of(*[0.01] * 100))],
            "the first token after the prompt: the prompt differs",
        ),
        ([record(border=of(-2.0, -3.0), inner=of(*[0.01] * 100))], "observation: what stands before it differs"),
        ([record(end=of(-2.0, -3.0), inner=of(*[0.01] * 100))], "the token that ends an answer"),
        ([record(repeated=of(*[0.4] * 50), inner=of(*[-0.2] * 50))], "a penalty on repetition"),
        ([record(inner=of(*[0.3, -0.2] * 50))], "another distribution or another context"),
        ([healthy, record(epoch=1, inner=of(*[0.3, -0.2] * 50))], "follow the policy from update to update"),
        ([record(inner=of(math.nan))], "is not a number"),
        ([record(untrained=3)], "3 tokens that the policy sampled"),
        ([record(stale=of(0.0))], "1 tokens of this step were sampled by another version"),
    ]:
        with pytest.raises(SelfCheckError) as caught:
            check_step(updates, 1e-3)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_staleness_has_no_limit_where_it_is_meant() -> None:
    found = check_step([record(inner=of(*[1e-4] * 9), stale=of(*[0.5] * 9))], 1e-3, synchronous=False)
    assert found["mismatch/staleness"] == pytest.approx(0.25, rel=1e-2)


def test_a_class_of_few_tokens_may_show_more_and_one_of_many_not() -> None:
    many = of(*[1e-4, -1e-4] * 500)
    check_step([record(inner=many, end=of(4e-3))], 1e-3)
    with pytest.raises(SelfCheckError):
        check_step([record(inner=many, end=of(*[4e-3] * 100))], 1e-3)


def test_the_limit_follows_what_parity_measured() -> None:
    assert limit_of("float32", 1e-7, None) == 1e-3
    assert limit_of("bfloat16", 0.05, None) == 0.5
    assert limit_of("bfloat16", 0.05, 0.2) == 0.2


def drawn(rng: np.random.Generator, penalty: float, noise: float) -> UpdateRecord:
    """A step of 64 groups of 4 answers: rounding of a size, and a penalty that shifts repeated and new tokens."""
    d = {name: rng.normal(0, noise, 600) for name in ("repeated", "inner")}
    return record(repeated=of(*(d["repeated"] + penalty)), inner=of(*(d["inner"] - penalty)))


def test_a_fault_below_the_noise_of_a_step_is_decided_by_evidence_and_names_the_step() -> None:
    rng = np.random.default_rng(0)
    evidence = Evidence("bfloat16", group=4)
    said = ""
    for step in range(60):  # noqa: B007
        one = drawn(rng, 0.05, 0.2)
        check_step([one], limit_of("bfloat16", 0.02, None))  # each step by itself is within the limit
        said = said_by(evidence, one, numerics=0.02)
        if said:
            break
    assert 1 < step < 30
    assert f"over {step + 1} steps" in said
    assert "less than the noise of one step" in said
    assert "a penalty on repetition" in said


@pytest.mark.parametrize("noise", [1e-7, 0.01, 0.1])
def test_healthy_rounding_is_never_taken_for_a_fault(noise: float) -> None:
    rng = np.random.default_rng(1)
    evidence = Evidence("bfloat16" if noise > 1e-3 else "float32", group=4)
    for _ in range(400):
        # rounding is the same for the same context: a bias of a third of its size that does not vanish
        evidence.add([drawn(rng, noise / 3, noise)], numerics=noise, whole=False)


def test_a_part_of_the_distribution_that_is_never_sampled_is_found_below_the_noise() -> None:
    """An engine that leaves out 0.3 %: log ratios of -0.003 in rounding of 0.02."""
    rng, evidence = np.random.default_rng(2), Evidence("bfloat16", group=4)
    steps = [record(inner=of(*(rng.normal(-0.0002, 0.02, 1000) + math.log(0.997)))) for _ in range(20)]
    said = [said_by(evidence, one, numerics=0.02, whole=True) for one in steps]
    assert "sampled from only 99." in said[-1]


@pytest.mark.parametrize("whole", [True, False])
def test_rounding_that_comes_again_with_its_prompt_is_no_evidence(whole: bool) -> None:
    """Three prompts, hundreds of steps, a policy that hardly moves: what is sampled at the end of an answer is the end
    token, whose rounding there is the same each time.
    """
    rng, evidence = np.random.default_rng(4), Evidence("bfloat16", group=8)
    prompts, rounding = [b"a", b"b", b"c"], [0.031, -0.004, 0.016]
    for _ in range(400):
        d = np.repeat(rounding, 8)
        ends = np.where(rng.random(24) < 0.7, d, 0.0) if whole else -d
        inner = rng.normal(0, 0.01, 24)
        if whole:  # what an end token lacks, the other tokens have
            inner -= ends
        evidence.add([record(end=of(*ends), inner=of(*inner))], numerics=0.001, whole=whole, prompts=prompts)
    other, said = Evidence("bfloat16", group=8), ""
    for step in range(400):  # as many prompts as groups: such a mean is no chance
        fresh = [f"{step} {number}".encode() for number in range(3)]
        said = said or said_by(other, record(end=of(*np.repeat(rounding, 8))), 0.001, True, fresh)
    assert "differ by +0.0143 nats on average" in said


def test_samples_less_surprising_than_the_entropy_show_an_engine_that_does_not_say_how_it_samples() -> None:
    def step(bias: float, rng: np.random.Generator) -> UpdateRecord:
        return record(surprise=Surprise(200.0, 300.0, rng.normal(bias * 200, math.sqrt(200.0)), 200.0))

    rng = np.random.default_rng(3)
    healthy = Evidence("float32", group=4)
    for _ in range(500):
        healthy.add([step(0.0, rng)], numerics=0.0, whole=True)
    assert healthy.whole.surprise.tokens == 100_000
    # a fault that comes late is found by the last steps alone
    late = [said_by(healthy, step(-0.5, rng), whole=True) for _ in range(12)]
    assert "samples more sharply" in late[-1]
    chosen = Evidence("float32", group=4)
    for _ in range(100):  # a choice by outcome favours surprising tokens, and is no evidence
        chosen.add([step(0.5, rng)], numerics=0.0, whole=False)
    assert chosen.whole.surprise.tokens == 0


def test_only_the_policy_that_sampled_says_how_surprising_a_token_is() -> None:
    evidence = Evidence("float32", group=4)
    later = UpdateRecord(0, False, (0,), {}, 0, Surprise(100.0, 100.0, -90.0, 10.0), {})
    evidence.add([later], numerics=0.0, whole=True)
    assert evidence.whole.surprise.tokens == 0


def test_an_infinite_difference_has_a_cause() -> None:
    assert "not a number" in cause({"inner": Differences(1, math.inf, math.inf, math.inf, 0.0)})
