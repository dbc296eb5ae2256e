"""The unlikeliness reward by hand, and its effect after the group's normalisation. Not covered: the learner that
computes the log-probabilities (tests/ray/test_unlikeliness_loop.py).
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlpost.algorithms.advantages import AdvantageSettings, normalise
from rlpost.algorithms.groups import keep
from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.errors import UserError
from rlpost.trajectory import Group, one_turn
from rlpost.types import Denominators, Prompt, Reward, SpanReward, Verdict
from rlpost_rewards.unlikeliness import Unlikeliness, ranks, weights

RIGHT, WRONG = Verdict("accepted", 1.0, "proved"), Verdict("rejected", 0.0, "failed")
LOST = Verdict("undecided", None, "crashed")
VERL = AdvantageSettings(ddof=1, eps=1e-6)
MEANS = [-0.1, -0.9, -0.5, -0.3]


def group(
    verdicts: list[Verdict], logprobs: list[list[float]], engine: bool = False, ids: list[int] | None = None
) -> Group:
    """A group with an answer per row, to a prompt of one token; rows with equal ``ids`` are copies of one another."""
    names = ids or list(range(len(logprobs)))
    members = tuple(
        one_turn((1,), (100 + name,) * len(row), "x", logprobs=row if engine else None, index=i)
        for i, (name, row) in enumerate(zip(names, logprobs, strict=True))
    )
    rewards: tuple[Reward | None, ...] = tuple(
        None if v.score is None else (SpanReward(0, one.length, v.score),)
        for v, one in zip(verdicts, members, strict=True)
    )
    # the prompt was not sampled: its token has no log-probability
    scored = () if engine else tuple(np.float32([np.nan, *row]) for row in logprobs)
    return Group(Prompt("p", text="p"), members, tuple(verdicts), rewards, scored)


def values(rewards: object) -> list[float | None]:
    return [None if r is None else sum(span.value for span in r) for r in rewards]  # type: ignore[attr-defined]


def test_the_released_convention_by_hand() -> None:
    """q = [3, 0, 1, 2] from the least likely; r = R (1 - 0.25 q / 4)."""
    judged = group([RIGHT, RIGHT, WRONG, WRONG], [[m, m] for m in MEANS])
    assert values(Unlikeliness("released_code")(judged)) == pytest.approx([0.8125, 1.0, 0.0, 0.0])


def test_the_papers_convention_by_hand() -> None:
    """Ranks from the likeliest are [0, 3, 2, 1]; r = R (1 - 0.25 (4 - rank) / 4)."""
    judged = group([RIGHT, RIGHT, WRONG, WRONG], [[m] for m in MEANS])
    assert values(Unlikeliness("paper")(judged)) == pytest.approx([0.75, 0.9375, 0.0, 0.0])


def test_sum_and_mean_rank_a_long_answer_differently() -> None:
    """Three tokens of -0.4 are likelier per token than two of -0.5, and less likely as a whole."""
    judged = group([RIGHT, RIGHT], [[-0.5, -0.5], [-0.4, -0.4, -0.4]])
    assert values(Unlikeliness(logprob="sum")(judged)) == [0.875, 1.0]
    assert values(Unlikeliness(logprob="mean")(judged)) == [1.0, 0.875]


def test_given_settings_override_the_recipe() -> None:
    stage = Unlikeliness("released_code", beta=0.5, ties="average")
    assert (stage.settings.logprob, stage.settings.ties, stage.settings.beta) == ("mean", "average", 0.5)


def test_copies_of_one_proof_share_a_rank_whatever_rounding_says() -> None:
    rows = [[-1.0], [-1.0 - 1e-6], [-3.0]]
    judged = group([RIGHT, RIGHT, RIGHT], rows, ids=[7, 7, 8])
    first, second, rare = values(Unlikeliness()(judged))
    # ranks 1 and 2 of 3, averaged
    assert first == second == pytest.approx(1 - 0.25 * 1.5 / 3)
    assert rare == 1.0
    released = values(Unlikeliness(ties="order")(judged))
    assert released[0] != released[1]


def test_ties_in_the_order_they_come() -> None:
    assert ranks([-1.0, -1.0, -2.0, -1.0], "order") == [1.0, 2.0, 0.0, 3.0]
    assert ranks([-1.0, -1.0, -2.0, -1.0], "average") == [2.0, 2.0, 0.0, 2.0]


def test_only_right_answers_are_ranked_if_asked_for() -> None:
    judged = group([WRONG, RIGHT, WRONG, RIGHT], [[m] for m in (-0.1, -0.2, -0.3, -0.4)])
    assert values(Unlikeliness(ranked="all")(judged)) == pytest.approx([0.0, 1 - 0.25 * 2 / 4, 0.0, 1.0])
    assert values(Unlikeliness(ranked="correct")(judged)) == pytest.approx([0.0, 1 - 0.25 / 2, 0.0, 1.0])


def test_an_undecided_answer_is_neither_paid_nor_ranked() -> None:
    judged = group([RIGHT, LOST, RIGHT], [[-0.1], [-5.0], [-1.0]])
    assert values(Unlikeliness()(judged)) == [0.875, None, 1.0]


def test_the_engines_own_figures_can_be_ranked_by() -> None:
    stage = Unlikeliness(source="rollout")
    assert stage.needs == ("rollout_logprobs",)
    assert values(stage(group([RIGHT, RIGHT], [[-0.1], [-1.0]], engine=True))) == [0.875, 1.0]
    assert Unlikeliness().needs == ("learner_logprobs",)


@pytest.mark.parametrize("source", ["learner", "rollout"])
def test_absent_logprobs_are_an_error(source: str) -> None:
    judged = group([RIGHT, WRONG], [[-0.1], [-1.0]], engine=source == "learner")
    with pytest.raises(UserError, match=f"no log-probabilities of the {source}"):
        Unlikeliness(source=source)(judged)  # type: ignore[arg-type]


def test_a_completion_of_probability_zero_is_an_error() -> None:
    with pytest.raises(UserError, match="has log-probability -inf"):
        Unlikeliness()(group([RIGHT, WRONG], [[-np.inf], [-1.0]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"beta": 1.5}, "beta is 1.5"), ({"rank": "best"}, "rank is 'best'"), ({"recipe": "mine"}, "recipe is 'mine'")],
)
def test_an_invalid_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Unlikeliness(**settings)


def shaped(successes: int, beta: float, size: int = 32) -> tuple[float, float, float]:
    """Advantages of the rarest and the likeliest right answer and of a wrong one; the right ones are spread evenly over
    the ranks.
    """
    places = np.round(np.linspace(0, size - 1, successes)) if successes > 1 else np.array([size // 2])
    keep_share = dict(enumerate(weights(list(map(float, range(size))), beta, "code", "average")))
    rewards = [keep_share[i] if i in places else 0.0 for i in range(size)]
    found = normalise(rewards, VERL)
    right = [found[int(i)] for i in places]
    return right[0], right[-1], next((a for a, r in zip(found, rewards, strict=True) if r == 0.0), float("nan"))


@pytest.mark.parametrize(
    ("successes", "beta", "expected"),
    [
        (1, 0.25, (5.48, 5.48, -0.18)),
        (4, 0.25, (3.00, 2.18, -0.37)),
        (8, 0.25, (2.01, 1.38, -0.57)),
        (16, 0.25, (1.25, 0.71, -0.98)),
        (24, 0.25, (0.87, 0.25, -1.68)),
        (28, 0.25, (0.76, -0.04, -2.54)),
        (31, 0.25, (0.87, -0.54, -4.96)),
        (4, 0.5, (3.44, 1.60, -0.36)),
        (16, 0.5, (1.55, 0.34, -0.95)),
        (24, 0.5, (1.21, -0.15, -1.59)),
        (31, 0.5, (1.34, -1.10, -3.70)),
    ],
)
def test_advantages_of_a_group_of_32(successes: int, beta: float, expected: tuple[float, float, float]) -> None:
    assert shaped(successes, beta) == pytest.approx(expected, abs=0.035)


def test_with_one_right_answer_nothing_changes() -> None:
    for beta in (0.0, 0.25, 0.9):
        assert shaped(1, beta) == pytest.approx(shaped(1, 0.0), abs=1e-4)


@pytest.mark.parametrize("beta", [0.25, 0.5])
def test_the_likeliest_right_answer_is_pushed_down_above_a_success_rate(beta: float) -> None:
    limit = (1 - beta) / (1 - beta / 2)
    signs = [shaped(s, beta)[1] > 0 for s in range(2, 32)]
    flip = 2 + signs.index(False)
    assert signs == [s < flip for s in range(2, 32)]
    assert abs(flip / 32 - limit) < 1.5 / 32


def test_a_group_of_right_answers_is_kept_by_the_shaped_filter_only() -> None:
    judged = group([RIGHT] * 4, [[m] for m in MEANS])
    found = Group(judged.prompt, judged.trajectories, judged.verdicts, tuple(Unlikeliness()(judged)))
    assert not keep(found, "binary")
    assert keep(found, "shaped")
    assert not keep(judged, "shaped")
    advantages = normalise([float(v or 0) for v in values(found.rewards)], VERL)
    assert sum(advantages) == pytest.approx(0.0, abs=1e-9)
    assert advantages.index(max(advantages)) == 1  # the rarest


@given(
    st.lists(st.floats(-20, -0.01), min_size=2, max_size=9),
    st.sampled_from(["code", "paper"]),
    st.sampled_from(["sum", "mean"]),
    st.randoms(use_true_random=False),
)
def test_the_order_of_a_group_does_not_matter(keys: list[float], rank: str, logprob: str, rng: object) -> None:
    verdicts = [RIGHT if i % 3 else WRONG for i in range(len(keys))]
    rows = [[key / 2, key / 2] for key in keys]
    stage = Unlikeliness(rank=rank, logprob=logprob)  # type: ignore[arg-type]
    straight = values(stage(group(verdicts, rows)))
    order = list(range(len(keys)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    mixed = values(stage(group([verdicts[i] for i in order], [rows[i] for i in order], ids=order)))
    assert mixed == pytest.approx([straight[i] for i in order])


@given(st.lists(st.integers(-2000, -1), min_size=2, max_size=8, unique=True), st.floats(0.01, 1.0))
def test_a_less_likely_right_answer_earns_more_and_none_more_than_before(steps: list[int], beta: float) -> None:
    keys = [step / 100 for step in steps]  # far enough apart for float32
    found = values(Unlikeliness(beta=beta)(group([RIGHT] * len(keys), [[key] for key in keys])))
    by_likelihood = [v for _, v in sorted(zip(np.float32(keys), found, strict=True), reverse=True)]
    assert all(a is not None and b is not None and a <= b for a, b in itertools.pairwise(by_likelihood))
    assert max(v for v in found if v is not None) == 1.0
    assert min(v for v in found if v is not None) >= 1 - beta


def test_the_gradient_pushes_a_rare_right_answer_up_harder_than_a_likely_one() -> None:
    """On-policy ∂L/∂log p of a token is -A / tokens; without the reward the two right answers are pushed alike."""

    def push(beta: float) -> list[float]:
        judged = group([RIGHT, RIGHT, WRONG, WRONG], [[m] for m in MEANS])
        rewards = values(Unlikeliness("released_code", beta=beta)(judged))
        logprobs = torch.tensor([[m] for m in MEANS], requires_grad=True)
        inputs = LossInputs(
            logprobs=logprobs,
            proximal_logprobs=logprobs.detach(),
            advantages=torch.tensor([[a] for a in normalise([float(v or 0) for v in rewards], VERL)]),
            mask=torch.ones(4, 1, dtype=torch.bool),
            span_ids=torch.zeros(4, 1, dtype=torch.long),
        )
        loss, _ = policy_loss(inputs, LossSettings(), Denominators(4, 4, 4, 8))
        loss.backward()
        assert logprobs.grad is not None
        return (-logprobs.grad[:, 0]).tolist()

    plain, found = push(0.0), push(0.25)
    assert plain[0] == pytest.approx(plain[1])
    assert found[1] > plain[1] > found[0] > 0 > found[2] == pytest.approx(found[3])
