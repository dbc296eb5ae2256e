"""The second path from rewards to gradients: by hand, and against the library's own over the settings.

Not covered: bugs planted into the loop (tests/unit/loop/test_trained_tokens.py).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.algorithms import credit
from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.learner.packing import denominators
from rlpost.plugins.algorithm import advantage_settings, build_advantage, build_loss
from rlpost.selfcheck import plain_loss
from rlpost.selfcheck.independent import advantages_of, check_credit, plain_samples
from rlpost.selfcheck.plain_samples import TRACED, Counts, PlainSample, choose, counts_of
from rlpost.selfcheck.updates import check_reference, check_updates
from rlpost.trajectory import Group, GroupReceipt
from rlpost.types import Denominators, Prompt, Reward, SpanReward, Surprise, TracedSample, UpdateRecord, Verdict
from support.fakes import same
from support.trajectories import answer, receipt


def configured(**algorithm: Any) -> RunConfig:
    return from_dict(
        {
            "model": {"path": "m", "dtype": "float32"},
            "rollout": {"max_tokens": 16, "logprobs": "always"},
            "scoring": {"verifier": "function"},
            "algorithm": algorithm,
        }
    )


def sample_of(places: int = 6, seed: int = 0) -> PlainSample:
    rng = np.random.default_rng(seed)
    advantages = rng.normal(size=places)
    advantages[1] = 0.0
    return PlainSample(
        number=0,
        part=0,
        token_ids=np.arange(places + 2, dtype=np.int32),
        places=np.arange(2, places + 2),
        advantages=advantages,
        spans=np.array([0, 0, 1, 1, 1, -1])[:places],
        rollout=rng.normal(-1.5, 0.3, places),
    )


def test_a_derivative_by_hand() -> None:
    """Two tokens of advantage 2, ratios e^0.1 and e^0.5 with an upper bound of 1.2: the second has no gradient."""
    one = dataclasses.replace(sample_of(2), advantages=np.array([2.0, 2.0]), spans=np.array([0, 0]))
    prox = np.array([-1.0, -1.0])
    found, certain = plain_loss.derivative(
        configured(clip=[0.2, 0.2]), one, current=np.array([-0.9, -0.5]), proximal=prox, reference=None,
        counts=Counts(tokens=4, sequences=2, spans=2, max_tokens=16),
    )  # fmt: skip
    assert found.tolist() == [pytest.approx(-2 * np.exp(0.1) / 4), 0.0]
    assert certain.all()


SETTINGS = [
    *(
        {"ratio": ratio, "aggregate": aggregate, "clip": [0.2, 0.3], "kl": {"coef": coef, "kind": kind}}
        for ratio, aggregate, (coef, kind) in itertools.product(
            ("token", "span", "sequence"),
            ("token", "sequence", "sequence_sum", "span", "constant"),
            ((0.0, "k3"), (0.1, "k3"), (0.1, "k2")),
        )
    ),
    {"delta": 1.6},
    {"aggregate": "span", "ratio": "span", "spans_per_completion": 5},
    {"loss": "cispo", "clip": [0.5, 0.3]},
    {"loss": "cispo", "ratio": "sequence"},
    {"loss": "gmpo", "ratio": "sequence", "clip": [0.4, 0.4], "aggregate": "sequence"},
    {"loss": "gmpo", "ratio": "span", "clip": [0.2, 0.2], "aggregate": "span"},
    {"loss": "dppo_tv", "clip": [0.05, 0.05], "importance": {"mode": "truncate", "cap": 1.2}},
    {"loss": "dppo_kl", "clip": [0.01, 0.01], "importance": {"mode": "truncate", "cap": 5.0}},
    *(
        {"importance": {"mode": mode, "level": level, "cap": cap, "low": low}}
        for mode, level, cap, low in itertools.product(
            ("truncate", "mask"), ("token", "sequence"), (1.1, 3.0), (None, 0.7)
        )
    ),
]


@pytest.mark.parametrize("algorithm", SETTINGS, ids=str)
def test_both_ways_to_the_gradient_agree_for_every_setting(algorithm: dict[str, Any]) -> None:
    config, largest = configured(**algorithm), 0.0
    for seed in range(8):
        one, rng = sample_of(seed=seed), np.random.default_rng(100 + seed)
        proximal, reference = one.rollout + rng.normal(0, 0.2, 6), one.rollout + rng.normal(0, 0.3, 6)  # type: ignore[operator]
        current = proximal + rng.normal(0, 0.3, 6)
        counts = Denominators(tokens=11, sequences=3, spans=4, max_tokens=16)
        if config.algorithm.spans_per_completion:
            counts = dataclasses.replace(counts, spans=3 * config.algorithm.spans_per_completion)
        logp = torch.tensor(current[None], requires_grad=True)
        inputs = _inputs(one, logp, proximal, reference if config.algorithm.kl.coef else None)
        value, _ = build_loss(config)(inputs, counts)
        (slope,) = torch.autograd.grad(value, logp)
        found, certain = plain_loss.derivative(
            config, one, current=current, proximal=proximal, reference=reference,
            counts=Counts(11, 3, 4, 16),
        )  # fmt: skip
        np.testing.assert_allclose(slope[0].numpy()[certain], found[certain], rtol=1e-5, atol=1e-9)
        largest = max(largest, float(np.abs(found).max()))
    assert largest > 0


FAR_SETTINGS = [
    {"kl": {"coef": 0.1, "kind": "k3"}},
    {"kl": {"coef": 0.1, "kind": "k2"}},
    {"ratio": "sequence", "aggregate": "sequence", "kl": {"coef": 0.1}},
    {},
    {"delta": 4.0},
    {"loss": "cispo"},
    {"loss": "gmpo", "ratio": "sequence", "aggregate": "sequence"},
    {"loss": "dppo_tv", "importance": {"mode": "truncate", "cap": 5.0}},
    {"loss": "dppo_kl", "importance": {"mode": "truncate", "cap": 5.0}},
]


@pytest.mark.parametrize("algorithm", FAR_SETTINGS, ids=str)
def test_a_policy_that_has_run_away_is_no_fault_of_the_loss(algorithm: dict[str, Any]) -> None:
    """Beyond 20 nats a ratio is held, beyond 10 the KL term, and a policy that collapses goes there."""
    config, one = configured(**algorithm), sample_of()
    proximal = np.array([-1.0, -2.0, -0.5, -30.0, -40.0, -3.0])
    current = np.array([-31.0, -0.1, -15.0, -0.1, -5.0, -90.0])
    reference = np.array([-0.5, -1.0, -35.0, -25.0, -0.5, -4.0])
    for sign in (1.0, -1.0):
        turned = dataclasses.replace(one, advantages=sign * one.advantages)
        logp = torch.tensor(current[None], dtype=torch.float32, requires_grad=True)
        inputs = _inputs(turned, logp, proximal, reference if config.algorithm.kl.coef else None)
        value, _ = build_loss(config)(inputs, Denominators(tokens=11, sequences=3, spans=4, max_tokens=16))
        (slope,) = torch.autograd.grad(value, logp)
        found, certain = plain_loss.derivative(
            config, turned, current=current, proximal=proximal, reference=reference, counts=Counts(11, 3, 4, 16)
        )
        assert certain.sum() >= 4 or config.algorithm.loss.startswith("dppo")
        scale = float(np.abs(found).max())
        np.testing.assert_allclose(slope[0].numpy()[certain], found[certain], rtol=1e-3, atol=1e-4 * max(scale, 1e-12))


def _inputs(one: PlainSample, logp: torch.Tensor, proximal: np.ndarray, reference: np.ndarray | None) -> Any:
    from rlpost.algorithms.losses import LossInputs

    def row(values: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(values))[None]

    return LossInputs(
        logprobs=logp,
        proximal_logprobs=row(proximal),
        advantages=row(one.advantages),
        mask=torch.ones(logp.shape, dtype=torch.bool),
        span_ids=row(one.spans).long(),
        rollout_logprobs=row(one.rollout),
        ref_logprobs=None if reference is None else row(reference),
    )


def batch_of(*, parts: bool = False, seed: int = 0) -> list[GroupReceipt]:
    """Three groups of four answers of unequal length, one undecided and one without a sampled token."""
    rng, groups = np.random.default_rng(seed), []
    for number in range(3):
        found = [answer("abcdefgh"[: int(rng.integers(2, 9))], i, prompt=(1, 2)) for i in range(4)]
        found[3] = answer("", 3, prompt=(1, 2)) if number == 1 else found[3]
        rewards: list[Reward | None] = []
        for one in found:
            middle = (one.prompt_tokens + one.length) // 2
            spans = [SpanReward(0, one.length, float(rng.integers(0, 3)))]
            if parts:
                spans += [
                    SpanReward(one.prompt_tokens, middle, float(rng.normal()), 0, stage="halves"),
                    SpanReward(middle, one.length, float(rng.normal()), 1, stage="halves"),
                    SpanReward(one.length - 1, one.length, -0.1, 0, "advantage"),
                ]
            rewards.append(tuple(spans))
        rewards[2] = None if number == 0 else rewards[2]
        verdicts = [
            None if r is None else Verdict("accepted" if r[0].value else "rejected", r[0].value, "x") for r in rewards
        ]
        groups.append(receipt(Group(Prompt(f"p{number}", text="x"), tuple(found), tuple(verdicts), tuple(rewards))))
    return groups


ADVANTAGES = [
    {},
    {"std": False},
    {"std": "batch"},
    {"std_ddof": 0, "std_eps": 1e-4},
    {"baseline": "leave_one_out", "std": False},
    {"baseline": "none"},
    {"recipe": "maxrl"},
    {"focal_gamma": 0.5},
    {"std": "batch", "focal_gamma": 1.0},
]


def assigned(config: RunConfig, groups: list[GroupReceipt]) -> credit.Credit:
    algorithm = config.algorithm
    return credit.assign(
        groups,
        build_advantage(config),
        step=0,
        group_filter=algorithm.filter,
        batch_std=advantage_settings(config) if algorithm.std == "batch" else None,
        focal_gamma=algorithm.focal_gamma,
    )


@pytest.mark.parametrize("algorithm", ADVANTAGES, ids=str)
@pytest.mark.parametrize("parts", [False, True])
def test_both_ways_to_the_advantages_agree_for_every_setting(algorithm: dict[str, Any], parts: bool) -> None:
    if parts and algorithm.get("recipe") == "maxrl":
        pytest.skip("maxrl refuses negative rewards")
    config = configured(**algorithm)
    for seed, rule in itertools.product(range(4), ("off", "shaped")):
        config = configured(**algorithm, filter=rule)
        groups = batch_of(parts=parts, seed=seed)
        batch = assigned(config, groups).batch
        check_credit(groups, batch, config.algorithm, "reject")
        numbers = choose(batch)
        assert 0 < len(numbers) <= TRACED
        for made in plain_samples(groups, batch, numbers, same, config.algorithm):
            sent = batch.samples[made.number]
            [whole] = credit.train_samples(sent.tokens[sent.receipt.index], sent.reward, sent.advantages)
            assert made.places.tolist() == np.flatnonzero(whole.mask).tolist()
            np.testing.assert_allclose(made.advantages, whole.advantages[whole.mask], rtol=1e-5, atol=1e-6)
            ids = whole.span_ids[whole.mask]
            assert [a == b for a, b in itertools.pairwise(made.spans)] == [a == b for a, b in itertools.pairwise(ids)]


@pytest.mark.parametrize(
    "algorithm", [{}, {"baseline": "leave_one_out"}, {"std_eps": 1e-12}, {"std": "batch"}], ids=str
)
@pytest.mark.parametrize("values", [(0.3, 0.1 + 0.2, 0.3), (1e6, 1e6 + 2.4e-10, 1e6), (-9.7, -9.7, -9.7 - 1.8e-15)])
def test_rewards_that_differ_by_rounding_are_as_good_as_equal(
    algorithm: dict[str, Any], values: tuple[float, ...]
) -> None:
    config = configured(**algorithm)
    found = tuple(answer("abcd"[: i + 1], i, prompt=(1, 2)) for i in range(len(values)))
    rewards = tuple((SpanReward(0, one.length, value),) for one, value in zip(found, values, strict=True))
    groups = [receipt(Group(Prompt("p", text="x"), found, (None,) * len(found), rewards))]
    batch = assigned(config, groups).batch
    check_credit(groups, batch, config.algorithm, "keep")
    for one, sample in zip(plain_samples(groups, batch, [0, 1, 2], same, config.algorithm), batch.samples, strict=True):
        assert one.advantages.tolist() == [sample.advantages[0]] * len(one.places)


def test_the_counts_of_an_update_are_those_that_the_loss_divides_by() -> None:
    for parts in (False, True):
        groups = batch_of(parts=parts)
        batch = assigned(configured(), groups).batch
        made = [credit.train_samples(s.tokens[s.receipt.index], s.reward, s.advantages)[s.part] for s in batch.samples]
        for indices in (range(len(made)), [0, 2, 5], [3]):
            ours, theirs = counts_of(batch, indices, 16), denominators(made, list(indices), 16)
            assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)


def test_a_constant_that_another_stage_adds_changes_nothing() -> None:
    """A stage that pays 5 for every whole answer, beside one that pays for halves."""
    algorithm = configured().algorithm
    groups = batch_of(parts=True)
    more = [
        dataclasses.replace(
            group,
            rewards=tuple(r and (dataclasses.replace(r[0], value=r[0].value + 5.0), *r[1:]) for r in group.rewards),
        )
        for group in groups
    ]
    before, after = advantages_of(groups, algorithm), advantages_of(more, algorithm)
    for one, other in zip(itertools.chain(*before), itertools.chain(*after), strict=True):
        assert (one is None) == (other is None)
        np.testing.assert_allclose(one or [], other or [], atol=1e-9)
    own = assigned(configured(), groups).batch, assigned(configured(), more).batch
    for one, other in zip(own[0].samples, own[1].samples, strict=True):
        np.testing.assert_allclose(one.advantages, other.advantages, atol=1e-9)


def test_what_credit_may_not_do() -> None:
    config = configured()
    groups = batch_of()
    batch = assigned(config, groups).batch
    first = next(sample for sample in batch.samples if any(sample.advantages))
    others = tuple(sample for sample in batch.samples if sample is not first)

    def changed(**fields: Any) -> Any:
        return dataclasses.replace(batch, samples=(dataclasses.replace(first, **fields), *others))

    for wrong, said in [
        (changed(advantages=tuple(-a for a in first.advantages)), "has the advantage"),
        (changed(reward=(SpanReward(0, 4, 9.0),)), "another reward (9)"),
        (dataclasses.replace(batch, samples=(first, *batch.samples)), "is twice in the batch"),
        (dataclasses.replace(batch, samples=others), "has a reward and is not trained on"),
        (changed(tokens=("elsewhere",)), "of no group of the step"),
    ]:
        with pytest.raises(SelfCheckError) as caught:
            check_credit(groups, wrong, config.algorithm, "reject")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_truncated_answer_that_should_be_masked_is_missed_by_nobody() -> None:
    cut = [answer("abc", 0), answer("abd", 1, finish="length")]
    rewards = tuple((SpanReward(0, one.length, float(i)),) for i, one in enumerate(cut))
    groups = [receipt(Group(Prompt("p", text="x"), tuple(cut), (None, None), rewards))]
    batch = assigned(configured(), groups).batch
    with pytest.raises(SelfCheckError, match="is trained on and should not be"):
        check_credit(groups, batch, configured().algorithm, "mask")
    check_credit(groups, batch, configured().algorithm, "keep")


def traced(config: RunConfig, one: PlainSample, **changes: Any) -> UpdateRecord:
    """A healthy record of an update on one sample, with changes."""
    length = len(one.token_ids)
    prox = np.full(length, np.nan, np.float32)
    prox[one.places] = -1.0
    slope, _ = plain_loss.derivative(
        config, one, current=prox[one.places], proximal=prox[one.places], reference=None, counts=Counts(6, 1, 2, 16)
    )
    gradient, advantages = prox.copy(), prox.copy()
    gradient[one.places], advantages[one.places] = slope, one.advantages
    rows = {"logprobs": prox, "proximal": prox, "reference": None, "advantages": advantages, "gradient": gradient}
    record = UpdateRecord(0, True, (0,), {}, 0, Surprise(), {0: TracedSample(**{**rows, **changes})})
    return record


def test_what_an_update_may_not_do() -> None:
    config = configured()
    found = [answer("abcdef", i, prompt=(1, 2), logprobs=[-1.0] * 6) for i in range(2)]
    rewards = tuple((SpanReward(0, one.length, float(i)),) for i, one in enumerate(found))
    groups = [receipt(Group(Prompt("p", text="x"), tuple(found), (None, None), rewards))]
    whole = assigned(config, groups).batch
    batch = dataclasses.replace(whole, samples=whole.samples[:1])
    [one] = plain_samples(groups, whole, [0], same, config.algorithm)
    good = traced(config, one)
    check_updates(config, batch, [one], [good])
    row = good.traced[0]
    shorter = row.gradient.copy()
    shorter[-1] = np.nan
    later = dataclasses.replace(
        good, epoch=1, traced={0: dataclasses.replace(row, proximal=row.proximal + np.float32(0.1))}
    )
    for records, said in [
        ([traced(config, one, gradient=shorter)], "1 are not trained on (the last one among them)"),
        ([traced(config, one, advantages=-row.advantages)], "is trained with the advantage"),
        ([traced(config, one, gradient=row.gradient * 0.5)], "factor 0.5;"),
        ([traced(config, one, gradient=-row.gradient)], "factor -1;"),
        ([good, later], "change by 0.1 nats from one pass"),
        ([dataclasses.replace(good, indices=(0, 0))], "trains on 1 of them, in 2 places"),
        ([dataclasses.replace(good, indices=())], "trains on 0 of them"),
    ]:
        with pytest.raises(SelfCheckError) as caught:
            check_updates(config, batch, [one], records)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_before_the_first_update_the_reference_is_the_policy_but_for_rounding() -> None:
    config, one = configured(kl={"coef": 0.1}), dataclasses.replace(sample_of(2), spans=np.zeros(2, int))

    def record_of(*apart: float) -> UpdateRecord:
        plain = traced(configured(), one).traced[0]
        rows = {n: dataclasses.replace(plain, reference=plain.logprobs + np.float32(d)) for n, d in enumerate(apart)}
        return dataclasses.replace(traced(configured(), one), traced=rows)

    # answers of two tokens: rounding in bfloat16 shows on one of them, and not on all
    check_reference([record_of(0.0, 0.06, -0.01, 0.0)], 0.02)
    check_reference([traced(config, one)], 0.02)
    for apart in ((0.2, 0.15, -0.3, 0.1), (math.nan,), (0.2,)):
        with pytest.raises(SelfCheckError, match="policy and reference differ by"):
            check_reference([record_of(*apart)], 0.02)


def test_the_samples_that_are_followed_cover_parts_and_signs_and_pairs_of_a_group() -> None:
    groups = batch_of(parts=True)
    batch = assigned(configured(), groups).batch
    numbers = choose(batch)
    assert len(numbers) == TRACED
    signs = {
        (span.stage, span.index, value > 0)
        for n in numbers
        for span, value in zip(batch.samples[n].reward, batch.samples[n].advantages, strict=True)
        if value
    }
    assert {("halves", 0, True), ("halves", 0, False), ("halves", 1, True), ("halves", 1, False)} <= signs
    two = choose(assigned(configured(), batch_of()).batch, count=2)
    made = assigned(configured(), batch_of()).batch.samples
    assert made[two[0]].advantages[0] * made[two[1]].advantages[0] < 0


def test_the_advantages_of_ordinary_steps_are_derived_in_turn() -> None:
    config = configured()
    groups = batch_of(seed=1)
    batch = assigned(config, groups).batch
    wrong = [dataclasses.replace(s, advantages=tuple(a + 1.0 for a in s.advantages)) for s in batch.samples]
    third = {id(groups[2].tokens)}
    mixed = tuple(w if id(w.tokens) in third else s for w, s in zip(wrong, batch.samples, strict=True))
    changed = dataclasses.replace(batch, samples=mixed)
    for turn in ((0, 3), (1, 3)):
        check_credit(groups, changed, config.algorithm, "reject", turn=turn)
    with pytest.raises(SelfCheckError, match="has the advantage"):
        check_credit(groups, changed, config.algorithm, "reject", turn=(2, 3))
    over_all = configured(std="batch")
    changed = dataclasses.replace(assigned(over_all, groups).batch, samples=mixed)
    with pytest.raises(SelfCheckError, match="has the advantage"):
        check_credit(groups, changed, over_all.algorithm, "reject", turn=(0, 3))
