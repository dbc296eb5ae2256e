"""The named recipes against their papers, token by token in plain Python; the gradient by finite differences.

Rewards become a loss through the same functions as in a run. Not covered: log-probabilities of a real model
(tests/property/test_learner_invariance.py), loading of files (test_config_load.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rlpost.algorithms import credit
from rlpost.algorithms.losses import LossInputs
from rlpost.config.load import from_dict
from rlpost.config.recipes import RECIPES
from rlpost.config.schema import RunConfig
from rlpost.learner.packing import denominators
from rlpost.plugins.algorithm import build_advantage, build_loss
from rlpost.trajectory import Group, one_turn
from rlpost.types import Prompt, SpanReward, Verdict
from support.trajectories import receipt

MAX_TOKENS = 16
REWARDS = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
"""Two groups with contrast, and one without."""


@dataclass(frozen=True)
class Drawn:
    """Log-probabilities of the tokens of one completion; ``now`` is where ``new`` starts, for what has no gradient."""

    new: list[float]
    old: list[float]
    ref: list[float]
    rollout: list[float]
    now: tuple[float, ...]


Batch = list[list[Drawn]]


def drawn(seed: int, distance: float = 0.3) -> Batch:
    rng = random.Random(seed)

    def one() -> Drawn:
        old = [rng.uniform(-3, -0.1) for _ in range(rng.randint(1, 6))]
        new, ref = [x + rng.gauss(0, distance) for x in old], [x + rng.gauss(0, 0.5) for x in old]
        return Drawn(new, old, ref, [x + rng.gauss(0, 0.2) for x in old], tuple(new))

    return [[one() for _ in rewards] for rewards in REWARDS]


def configured(name: str) -> RunConfig:
    return from_dict(
        {
            "model": {"path": "m", "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "rollout": {"max_tokens": MAX_TOKENS},
            "algorithm": {"recipe": name},
        }
    )


def ours(name: str, batch: Batch) -> tuple[float, list[float]]:
    """Loss and gradient, flat over the tokens of the trained completions, in group order."""
    config, groups = configured(name), []
    for g, (rewards, members) in enumerate(zip(REWARDS, batch, strict=True)):
        answers = tuple(one_turn((1,), (5,) * len(one.new), index=i) for i, one in enumerate(members))
        verdicts = tuple(Verdict("accepted" if r else "rejected", r, "x") for r in rewards)
        values = tuple((SpanReward(0, one.length, r),) for r, one in zip(rewards, answers, strict=True))
        groups.append(receipt(Group(Prompt(f"p{g}", text="x"), answers, verdicts, values)))
    a = config.algorithm
    found = credit.assign(groups, build_advantage(config), step=0, group_filter=a.filter)
    samples = [
        credit.train_samples(s.tokens[s.receipt.index], s.reward, s.advantages)[s.part] for s in found.batch.samples
    ]
    assert all(sample.mask.tolist() == [False] + [True] * (sample.length - 1) for sample in samples)
    rows = [one for members, kept in zip(batch, found.advantages, strict=True)
            for one, value in zip(members, kept, strict=True) if value is not None]  # fmt: skip
    width = max(len(one.new) for one in rows)

    def padded(values: list[list[float]], dtype: torch.dtype = torch.float64, fill: float = math.nan) -> torch.Tensor:
        return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], dtype=dtype)

    logprobs = padded([one.new for one in rows]).requires_grad_()
    mask = padded([[1.0] * len(one.new) for one in rows], fill=0.0).bool()
    inputs = LossInputs(
        logprobs=logprobs,
        proximal_logprobs=padded([one.old for one in rows]),
        advantages=padded([s.advantages[1:].tolist() for s in samples]),
        mask=mask,
        span_ids=padded([s.span_ids[1:].tolist() for s in samples], torch.long, -1),
        ref_logprobs=padded([one.ref for one in rows]),
        rollout_logprobs=padded([one.rollout for one in rows]),
    )
    counts = denominators(samples, range(len(samples)), config.rollout.max_tokens)
    loss, _ = build_loss(config)(inputs, counts)
    loss.backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad[mask].tolist()


def clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def standardised(rewards: list[float], eps: float = 1e-6) -> list[float]:
    m = mean(rewards)
    deviation = math.sqrt(sum((r - m) ** 2 for r in rewards) / (len(rewards) - 1))
    return [0.0 if deviation == 0 else (r - m) / (deviation + eps) for r in rewards]


def grpo(batch: Batch) -> float:
    """DeepSeekMath, eq. 3 with eq. 4 for the divergence, β = 0.04, averaged over questions."""
    per_question = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        per_answer = []
        for advantage, one in zip(standardised(rewards), members, strict=True):
            tokens = []
            for new, old, ref in zip(one.new, one.old, one.ref, strict=True):
                divergence = math.exp(ref - new) - (ref - new) - 1
                tokens.append(clipped(math.exp(new - old), advantage, 0.2, 0.2) - 0.04 * divergence)
            per_answer.append(mean(tokens))
        per_question.append(mean(per_answer))
    return -mean(per_question)


def dr_grpo(batch: Batch) -> float:
    """Understanding R1-Zero-like training, section 3.2: no deviation, a constant in place of the length."""
    per_question = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        answers = [
            sum(clipped(math.exp(n - o), r - mean(rewards), 0.2, 0.2) for n, o in zip(m.new, m.old, strict=True))
            for r, m in zip(rewards, members, strict=True)
        ]
        per_question.append(mean(answers) / MAX_TOKENS)
    return -mean(per_question)


def rloo(batch: Batch) -> float:
    """Back to Basics, eq. 7, with the clipped ratio in place of log π; the completion is one action."""
    per_question = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        answers = []
        for i, one in enumerate(members):
            advantage = rewards[i] - mean([r for j, r in enumerate(rewards) if j != i])
            answers.append(
                sum(clipped(math.exp(n - o), advantage, 0.2, 0.2) for n, o in zip(one.new, one.old, strict=True))
            )
        per_question.append(mean(answers))
    return -mean(per_question)


def dapo(batch: Batch) -> float:
    """DAPO, eq. 8 and 12: token mean over what dynamic sampling leaves, clip 0.2 and 0.28."""
    tokens = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        if 0 < sum(rewards) < len(rewards):
            for advantage, one in zip(standardised(rewards), members, strict=True):
                tokens += [
                    clipped(math.exp(n - o), advantage, 0.2, 0.28) for n, o in zip(one.new, one.old, strict=True)
                ]
    return -mean(tokens)


def gspo(batch: Batch) -> float:
    """Group sequence policy optimization, eq. 5 to 7: one length-normalised ratio, clip 3e-4 and 4e-4."""
    per_question = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        answers = []
        for advantage, one in zip(standardised(rewards), members, strict=True):
            ratio = math.exp(sum(n - o for n, o in zip(one.new, one.old, strict=True)) / len(one.new))
            answers.append(clipped(ratio, advantage, 3e-4, 4e-4))
        per_question.append(mean(answers))
    return -mean(per_question)


def rank_grpo(batch: Batch) -> float:
    """Rank-GRPO, eq. 6, for lists of one rank: the ratio of geometric means, clip 0.06 and 0.08, β = 0.001."""
    per_question = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        answers = []
        for advantage, one in zip(standardised(rewards, 1e-4), members, strict=True):
            ratio = math.exp(mean([n - o for n, o in zip(one.new, one.old, strict=True)]))
            d = [r - n for n, r in zip(one.new, one.ref, strict=True)]
            divergence = mean([math.exp(x) - x - 1 for x in d])
            answers.append(clipped(ratio, advantage, 0.06, 0.08) - 1e-3 * divergence)
        per_question.append(mean(answers))
    return -mean(per_question)


def cispo(batch: Batch) -> float:
    """MiniMax-M1, eq. 4: weights up to 5, without gradient, on log π; mean over all tokens."""
    tokens = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        for advantage, one in zip(standardised(rewards), members, strict=True):
            weights = [min(math.exp(n - o), 5.0) for n, o in zip(one.now, one.old, strict=True)]
            tokens += [w * advantage * new for w, new in zip(weights, one.new, strict=True)]
    return -mean(tokens)


def gmpo(batch: Batch) -> float:
    """Geometric-mean policy optimization: (Π_t clipped ρ_t)^(1/|y|) A, each ρ_t within e^±0.4 where A asks for it."""
    per_question = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        answers = []
        for advantage, one in zip(standardised(rewards), members, strict=True):
            product = 1.0
            for new, old in zip(one.new, one.old, strict=True):
                ratio, limit = math.exp(new - old), math.exp(math.copysign(0.4, advantage))
                product *= min(ratio, limit) if advantage > 0 else max(ratio, limit)
            answers.append(product ** (1 / len(one.new)) * advantage)
        per_question.append(mean(answers))
    return -mean(per_question)


def dppo(batch: Batch) -> float:
    """Rethinking the trust region, eq. 11 to 13: no token whose probability is 0.2 from the engine's and leads on."""
    tokens = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        for advantage, one in zip(standardised(rewards), members, strict=True):
            for new, now, engine in zip(one.new, one.now, one.rollout, strict=True):
                moved = math.exp(now) - math.exp(engine)
                away = abs(moved) > 0.2 and moved * advantage > 0
                tokens.append(0.0 if away else min(math.exp(now - engine), 20.0) * advantage * new)
    return -mean(tokens)


def maxrl(batch: Batch) -> float:
    """Maximum likelihood reinforcement learning: (r - mean) / mean, with the default loss."""
    tokens = []
    for rewards, members in zip(REWARDS, batch, strict=True):
        for reward, one in zip(rewards, members, strict=True):
            advantage = (reward - mean(rewards)) / mean(rewards)
            tokens += [clipped(math.exp(n - o), advantage, 0.2, 0.2) for n, o in zip(one.new, one.old, strict=True)]
    return -mean(tokens)


REFERENCES: dict[str, Callable[[Batch], float]] = {
    "grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo, "dapo": dapo, "gspo": gspo, "rank_grpo": rank_grpo,
    "cispo": cispo, "gmpo": gmpo, "dppo": dppo, "maxrl": maxrl,
}  # fmt: skip


def slope(reference: Callable[[Batch], float], batch: Batch, members: list[Drawn]) -> list[float]:
    """Central differences of the reference over every token of ``members``."""
    h, found = 1e-6, []
    for one in members:
        for t in range(len(one.new)):
            kept, values = one.new[t], []
            for sign in (1, -1):
                one.new[t] = kept + sign * h
                values.append(reference(batch))
            one.new[t] = kept
            found.append((values[0] - values[1]) / (2 * h))
    return found


def test_every_recipe_has_a_reference() -> None:
    assert REFERENCES.keys() == RECIPES.keys()


@pytest.mark.parametrize("distance", [0.3, 1e-4], ids=["off-policy", "near the policy"])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_loss_and_gradient_agree_with_the_paper(name: str, distance: float) -> None:
    batch = drawn(seed=3, distance=distance)
    loss, gradient = ours(name, batch)
    # the filter of DAPO leaves the third group out
    members = [one for group in (batch[:2] if name == "dapo" else batch) for one in group]
    assert loss == pytest.approx(REFERENCES[name](batch), rel=1e-5, abs=1e-7)
    expected = slope(REFERENCES[name], batch, members)
    assert gradient == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert np.abs(expected).max() > 1e-3


def test_rloos_advantage_is_the_centred_reward_times_k_over_k_minus_one() -> None:
    batch = drawn(seed=4, distance=0.0)
    _, gradient = ours("rloo", batch)
    tokens = iter(gradient)
    for rewards, members in zip(REWARDS, batch, strict=True):
        for reward, one in zip(rewards, members, strict=True):
            # on-policy the slope of every token is -A_i over 12 completions
            expected = -(4 / 3) * (reward - mean(rewards)) / 12
            assert [next(tokens) for _ in one.new] == pytest.approx([expected] * len(one.new), rel=1e-6)


def test_gspos_ratio_is_the_geometric_mean_of_the_token_ratios() -> None:
    batch = drawn(seed=5, distance=0.0)
    # token ratios that cancel: their geometric mean is 1, so nothing is clipped although each token is far off
    one = batch[0][0]
    one.new[:] = [x + (0.7 if t % 2 else -0.7) for t, x in enumerate(one.old)]
    if len(one.old) % 2:
        one.new[-1] = one.old[-1]
    _, gradient = ours("gspo", batch)
    # A = 1/2 over sample deviation sqrt(1/3); slope -A / (12 |y|) on every token
    expected = -0.5 / (math.sqrt(1 / 3) + 1e-6) / 12 / len(one.new)
    assert gradient[: len(one.new)] == pytest.approx([expected] * len(one.new), rel=1e-5)
