"""Surrogates by hand: value, slope, and which tokens a limit acts on. Not covered: against TRL
(tests/property/test_trl_reference.py); PPO's surrogate without a second limit (test_losses.py).
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.algorithms.surrogates import Terms, cispo, clipped, dppo, gmpo
from rlpost.types import Denominators

COUNTS = Denominators(tokens=4, sequences=2, spans=3, max_tokens=8)
SURROGATES = [
    LossSettings(delta=4.0),
    LossSettings(surrogate="cispo", clip_low=1.0, clip_high=4.0),
    LossSettings(surrogate="gmpo", ratio="sequence", aggregate="sequence", clip_low=0.4, clip_high=0.4),
    LossSettings(surrogate="gmpo", ratio="span", aggregate="span", clip_low=0.4, clip_high=0.4),
    LossSettings(surrogate="dppo_tv", importance_cap=20.0),
    LossSettings(surrogate="dppo_kl", importance_cap=20.0, clip_low=0.05, clip_high=0.05),
]
NAMES = ["two-sided", "cispo", "gmpo", "gmpo by span", "dppo_tv", "dppo_kl"]


def logs(*ratios: float) -> torch.Tensor:
    return torch.tensor([[math.log(r) for r in ratios]], requires_grad=True)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([list(values)])


def slopes(terms: Terms, leaf: torch.Tensor) -> list[float]:
    return torch.autograd.grad(terms.loss.sum(), [leaf])[0][0].tolist()


def told(flags: torch.Tensor) -> list[bool]:
    return flags[0].tolist()


def test_the_second_limit_by_hand() -> None:
    # ε 0.2 and 0.3, δ 3: min(min(ρ, 3) A, clip(ρ, 0.8, 1.3) A)
    ratios, advantages = logs(2.0, 5.0, 5.0, 2.0, 0.5, 0.5), row(-1.0, -1.0, 1.0, 1.0, -2.0, 2.0)
    terms = clipped(ratios, advantages, 0.2, 0.3, delta=3.0)
    assert terms.loss[0].tolist() == pytest.approx([2.0, 3.0, -1.3, -1.3, 1.6, -1.0])
    assert slopes(terms, ratios) == pytest.approx([2.0, 0.0, 0.0, 0.0, 0.0, -1.0])
    assert told(terms.low) == [False, False, False, False, True, False]
    # from above: the positive ones at 1.3, the negative one at δ
    assert told(terms.high) == [False, True, True, True, False, False]
    without = clipped(ratios, advantages, 0.2, 0.3)
    assert without.loss[0].tolist() == pytest.approx([2.0, 5.0, -1.3, -1.3, 1.6, -1.0])


def test_cispo_by_hand() -> None:
    # weights 1 - 0.5 to 1 + 1: 2 (of 3), 1.5, 0.5 (of 0.25); ℓ = -w A log π
    logprobs = row(-1.0, -2.0, -3.0, -1.0).requires_grad_()
    terms = cispo(logs(3.0, 1.5, 0.25, 3.0), logprobs, row(1.0, -1.0, 2.0, 0.0), 0.5, 1.0)
    assert terms.loss[0].tolist() == pytest.approx([2.0, -3.0, 3.0, 0.0])
    # every token with an advantage has a gradient, clipped or not
    assert slopes(terms, logprobs) == pytest.approx([-2.0, 1.5, -1.0, 0.0])
    assert (told(terms.low), told(terms.high)) == ([False, False, True, False], [True, False, False, False])


def test_gmpo_by_hand() -> None:
    # log-ratios 0.2, 0.9 (clipped to 0.4), -0.9 (not clipped: A > 0); mean -0.1, ratio e^-0.1
    log_ratio = torch.tensor([[0.2, 0.9, -0.9, 7.0]], requires_grad=True)
    mask, spans = torch.tensor([[True, True, True, False]]), torch.tensor([[0, 0, 0, -1]])
    terms = gmpo(log_ratio, row(2.0, 2.0, 2.0, 0.0), mask, spans, 0.4, 0.4)
    ratio = math.exp((0.2 + 0.4 - 0.9) / 3)
    assert terms.loss[0, :3].tolist() == pytest.approx([-2 * ratio] * 3)
    # three equal terms, each with slope -2 ratio / 3 at every token that is not clipped
    assert slopes(terms, log_ratio) == pytest.approx([-2 * ratio, 0.0, -2 * ratio, 0.0])
    assert (told(terms.low), told(terms.high)) == ([False] * 4, [False, True, False, False])
    # with the other sign the clip acts on the other side: 0.2, 0.9, -0.4
    turned = gmpo(log_ratio, row(-2.0, -2.0, -2.0, 0.0), mask, spans, 0.4, 0.4)
    assert turned.loss[0, 0].item() == pytest.approx(2 * math.exp((0.2 + 0.9 - 0.4) / 3))
    assert told(turned.low)[:3] == [False, False, True]


def test_gmpo_takes_each_span_by_itself_and_counts_tokens_without_advantage_as_ratio_one() -> None:
    log_ratio = torch.tensor([[0.3, -0.1, 0.2]])
    terms = gmpo(log_ratio, row(1.0, 0.0, 1.0), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[0, 0, 1]]), 1.0, 1.0)
    assert terms.ratio[0].tolist() == pytest.approx([math.exp(0.15), math.exp(0.15), math.exp(0.2)])


def test_dppo_by_total_variation_by_hand() -> None:
    # π and μ: 0.9 and 0.6 (A > 0 and up: masked), the same with A < 0 (back towards μ: kept), 0.1 and 0.6 (A < 0 and
    # down: masked), 0.6 and 0.5 (within 0.2: kept), 0.002 and 0.0001 (ratio 20, capped at 10, but close: kept)
    ours = torch.tensor([[0.9, 0.9, 0.1, 0.6, 0.002]]).log().requires_grad_()
    theirs = torch.tensor([[0.6, 0.6, 0.6, 0.5, 0.0001]]).log()
    terms = dppo("dppo_tv", ours, theirs, row(1.0, -1.0, -1.0, 1.0, 1.0), 0.2, 0.2, cap=10.0)
    assert told(terms.high) == [True, False, False, False, False]
    assert told(terms.low) == [False, False, True, False, False]
    assert slopes(terms, ours) == pytest.approx([0.0, 1.5, 0.0, -1.2, -10.0])
    assert terms.ratio[0].tolist() == pytest.approx([1.5, 1.5, 1 / 6, 1.2, 20.0], rel=1e-5)


def test_dppo_by_kl_by_hand() -> None:
    # μ = 0.5, π = 0.75: 0.5 log(0.5 / 0.75) + 0.5 log(0.5 / 0.25) = 0.5 log(4/3) = 0.1438
    ours, theirs = torch.tensor([[0.75]]).log(), torch.tensor([[0.5]]).log()
    for limit, masked in ((0.1437, True), (0.1439, False)):
        terms = dppo("dppo_kl", ours, theirs, row(1.0), limit, limit, cap=20.0)
        assert bool(terms.high) is masked
    # certainty on either side is far away, and finite
    for p, q in ((0.0, -1.0), (-1.0, 0.0), (-math.inf, -1.0), (-1.0, -math.inf), (0.0, 0.0)):
        terms = dppo("dppo_kl", row(p), row(q), row(1.0 if p > q else -1.0), 0.05, 0.05, cap=20.0)
        assert bool(terms.high | terms.low) is (p != q)


@pytest.mark.parametrize("kind", ["dppo_tv", "dppo_kl"])
def test_dppo_is_policy_gradient_where_engine_and_learner_agree(kind: str) -> None:
    ours = row(-1.0, -0.1, 0.0).requires_grad_()
    terms = dppo(kind, ours, ours.detach(), row(1.0, -2.0, 0.5), 0.0, 0.0, cap=20.0)  # type: ignore[arg-type]
    assert slopes(terms, ours) == pytest.approx([-1.0, 2.0, -0.5])


def inputs(dtype: torch.dtype = torch.float32, bad: float = 0.0) -> LossInputs:
    """Two completions, the first with a gap, the second short; what is masked holds ``bad``."""
    mask = torch.tensor([[True, False, True, True], [True, False, False, False]])
    source = torch.Generator().manual_seed(2)
    draws = [(-1.5 + 0.4 * torch.randn(2, 4, generator=source)).to(dtype) for _ in range(4)]
    new, old, rollout, ref = (torch.where(mask, x, torch.tensor(bad, dtype=dtype)) for x in draws)
    return LossInputs(
        logprobs=new.requires_grad_(), proximal_logprobs=old, rollout_logprobs=rollout, ref_logprobs=ref, mask=mask,
        advantages=torch.where(mask, torch.tensor([[1.0], [-2.0]]), torch.tensor(bad)),
        span_ids=torch.tensor([[0, -1, 0, 1], [0, -1, -1, -1]]),
    )  # fmt: skip


def gradient(given: LossInputs, settings: LossSettings, counts: Denominators = COUNTS) -> tuple[float, torch.Tensor]:
    loss, sums = policy_loss(given, settings, counts)
    assert all(torch.isfinite(figure) for figure in sums.values())
    [found] = torch.autograd.grad(loss, [given.logprobs])
    return loss.item(), found


@pytest.mark.parametrize("settings", SURROGATES, ids=NAMES)
@pytest.mark.parametrize("correction", [None, ("truncate", "sequence"), ("mask", "token"), ("mask", "sequence")])
def test_nothing_under_the_mask_leaks_from_any_surrogate(settings: LossSettings, correction: tuple | None) -> None:
    if correction is not None and settings.importance_cap is None:
        kind, level = correction
        settings = replace(settings, importance_cap=1.5, importance_kind=kind, importance_level=level)
    settings = replace(settings, kl_coef=0.1)
    clean, dirty = gradient(inputs(), settings), gradient(inputs(bad=math.nan), settings)
    assert clean[0] == dirty[0]
    assert torch.equal(clean[1], dirty[1])
    assert (clean[1][~inputs().mask] == 0).all()


@pytest.mark.parametrize("settings", SURROGATES, ids=NAMES)
def test_a_micro_batch_without_trained_tokens_has_loss_0_and_a_gradient(settings: LossSettings) -> None:
    empty = replace(inputs(), mask=torch.zeros(2, 4, dtype=torch.bool))
    loss, found = gradient(empty, settings, Denominators(0, 0, 0, 8))
    assert loss == 0
    assert found.abs().max() == 0


@pytest.mark.parametrize("settings", SURROGATES, ids=NAMES)
def test_half_precision_log_probabilities_lose_nothing_but_their_own_rounding(settings: LossSettings) -> None:
    half = inputs(torch.bfloat16)
    whole = replace(half, logprobs=half.logprobs.detach().float().requires_grad_(),
                    proximal_logprobs=half.proximal_logprobs.float(), rollout_logprobs=half.rollout_logprobs.float(),
                    ref_logprobs=half.ref_logprobs.float())  # type: ignore[union-attr]  # fmt: skip
    settings = replace(settings, kl_coef=0.1)
    if settings.importance_cap is None:
        settings = replace(settings, importance_cap=1.5, importance_level="sequence", importance_kind="mask")
    (loss, slope), (expected, reference) = gradient(half, settings), gradient(whole, settings)
    assert loss == expected
    assert torch.equal(slope, reference.to(torch.bfloat16))


@pytest.mark.parametrize("settings", SURROGATES, ids=NAMES)
def test_turning_the_advantages_turns_the_gradient_of_the_first_update(settings: LossSettings) -> None:
    given = inputs()
    same = given.logprobs.detach()
    given = replace(given, proximal_logprobs=same, rollout_logprobs=same)
    _, forward = gradient(given, settings)
    _, back = gradient(replace(given, advantages=-given.advantages), settings)
    assert forward.abs().max() > 0
    assert torch.equal(forward, -back)


def test_masked_weights_are_counted_and_stay_in_the_denominator() -> None:
    # weights e^0.1, e^2 (above 1.5), e^-2 (below 0.5) and 1: two of four tokens are left out, the sum is still over 4
    given = inputs()
    old = given.logprobs.detach()
    away = torch.tensor([[0.1, 0.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    given = replace(given, proximal_logprobs=old, rollout_logprobs=old - away)
    settings = LossSettings(importance_cap=1.5, importance_low=0.5, importance_kind="mask")
    loss, sums = policy_loss(given, settings, COUNTS)
    assert float(sums["importance_masked"]) == pytest.approx(0.5)
    assert float(sums["importance"]) == pytest.approx((math.exp(0.1) + 1) / 4)
    assert loss.item() == pytest.approx(-(math.exp(0.1) * 1.0 + 1 * -2.0) / 4)


@pytest.mark.parametrize("missing", ["rollout_logprobs", "importance_cap"])
def test_dppo_asks_for_what_it_compares_with(missing: str) -> None:
    given, settings = inputs(), LossSettings(surrogate="dppo_tv", importance_cap=20.0)
    if missing == "importance_cap":
        settings = replace(settings, importance_cap=None)
    else:
        given = replace(given, rollout_logprobs=None)
    with pytest.raises(ValueError, match=r"rollout\.logprobs: auto"):
        policy_loss(given, settings, COUNTS)
