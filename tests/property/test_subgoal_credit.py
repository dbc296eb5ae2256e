"""What the reward ``subgoals`` cannot do, whatever steps a policy writes. Not covered: which steps are needed, which real
Lean says (tests/contract/test_lean_subgoals.py).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages, maxrl_advantages, spread_over_tokens
from rlpost.algorithms.credit import train_samples
from rlpost.scoring.stages import run_stages
from rlpost.selfcheck.independent import _credit_at
from rlpost.trajectory import Group
from rlpost.types import ItemVerdict, Prompt, Reward, Verdict
from rlpost_rewards.outcome import Outcome
from rlpost_rewards.subgoals import Subgoals
from support.trajectories import answer

MODES = settings(deadline=None, derandomize=True, max_examples=150)
REASONS = ("needed", "idle", "trivial", "open", "unproved", "undecided")
STEPS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(REASONS)), max_size=12)
"""Length and fate of each step of a proof."""
PROOFS = st.lists(st.none() | STEPS, min_size=2, max_size=6)
"""The steps of each proof of a group that failed; None: it was accepted."""
HOW = st.builds(AdvantageSettings, baseline=st.sampled_from(["mean", "leave_one_out"]), std=st.booleans())
REST = "exact x"
STAGES = [("outcome", Outcome()), ("subgoals", Subgoals())]


def item(start: int, length: int, reason: str, index: int) -> ItemVerdict:
    outcome = {"unproved": "rejected", "undecided": "undecided"}.get(reason, "accepted")
    return ItemVerdict(start, start + length, outcome, float(reason == "needed"), reason, index)  # pyright: ignore[reportArgumentType]


def group(proofs: list[list[tuple[int, str]] | None], status: str = "stop") -> Group:
    members, verdicts = [], []
    for number, steps in enumerate(proofs):
        text, items = "", []
        for index, (length, reason) in enumerate(steps or ()):
            items.append(item(len(text), length, reason, index))
            text += "h" * length + " "
        members.append(answer(text + REST, number, finish=status))  # pyright: ignore[reportArgumentType]
        proved = steps is None
        outcome = ("accepted", 1.0, "proved") if proved else ("rejected", 0.0, "failed")
        verdicts.append(Verdict(*outcome, items=tuple(items)))  # pyright: ignore[reportArgumentType]
    return Group(Prompt("p", text="?"), tuple(members), tuple(verdicts), ((),) * len(members))


def total(reward: Reward | None) -> float:
    return sum(span.value for span in reward or () if span.channel == "reward")


def credited(given: Group, how: AdvantageSettings) -> tuple[Group, list[np.ndarray]]:
    """The group after both stages, and the advantages of each member's sampled tokens."""
    [found] = run_stages([given], STAGES)
    rows = group_advantages(found.rewards, how)
    tokens = []
    for one, reward, row in zip(found.trajectories, found.rewards, rows, strict=True):
        assert reward is not None
        assert row is not None
        [sample] = train_samples(one, reward, row)
        tokens.append(sample.advantages[sample.mask])
        again = [_credit_at(place, reward, row) for place in np.flatnonzero(sample.mask)]
        assert np.allclose(tokens[-1], again)
    return found, tokens


@MODES
@given(PROOFS, HOW)
def test_no_failed_proof_is_worth_as_much_as_an_accepted_one(proofs: list, how: AdvantageSettings) -> None:
    found, tokens = credited(group(proofs), how)
    for proof, reward, own in zip(proofs, found.rewards, tokens, strict=True):
        assert total(reward) == (1.0 if proof is None else 0.0)
        if None in proofs and any(one is not None for one in proofs):
            assert (own > 0).all() if proof is None else (own <= 0).all()
            assert proof is None or own[-len(REST) :].max() < 0


@MODES
@given(PROOFS, HOW)
def test_blame_moves_from_needed_steps_and_from_nothing_else(proofs: list, how: AdvantageSettings) -> None:
    given_ = group(proofs)
    _, tokens = credited(given_, how)
    [plain] = run_stages([given_], STAGES[:1])
    for one, verdict, reward, row, own in zip(
        plain.trajectories, given_.verdicts, plain.rewards, group_advantages(plain.rewards, how), tokens, strict=True
    ):
        assert verdict is not None
        before = train_samples(one, reward or (), row or ())[0].advantages[1:]
        spared = np.zeros(len(before), bool)
        for each in verdict.items:
            spared[each.start : each.stop] |= each.reason == "needed"
        assert np.array_equal(own, np.where(spared, np.maximum(before, 0), before))


@MODES
@given(PROOFS, STEPS, st.data(), HOW)
def test_padding_raises_no_total_and_no_credit_elsewhere(
    proofs: list, padding: list[tuple[int, str]], data: st.DataObject, how: AdvantageSettings
) -> None:
    member = data.draw(st.integers(0, len(proofs) - 1))
    if proofs[member] is None:
        return
    useless = [(length, reason) for length, reason in padding if reason != "needed"]
    padded = [*proofs]
    padded[member] = [*useless, *proofs[member]]
    (before, plain), (after, own) = credited(group(proofs), how), credited(group(padded), how)
    assert [total(reward) for reward in after.rewards] == [total(reward) for reward in before.rewards]
    assert own[member].sum() <= plain[member].sum() + 1e-6
    assert all(np.array_equal(a, b) for i, (a, b) in enumerate(zip(own, plain, strict=True)) if i != member)
    assert np.array_equal(own[member][len(own[member]) - len(plain[member]) :], plain[member])


@MODES
@given(st.lists(st.just((3, "needed")), max_size=60))
def test_the_sum_does_not_depend_on_the_number_of_steps(steps: list[tuple[int, str]]) -> None:
    found, tokens = credited(group([steps, None]), AdvantageSettings())
    assert [total(reward) for reward in found.rewards] == [0.0, 1.0]
    blanks = -float(tokens[1][0]) * len(steps)  # those between the steps
    assert math.isclose(tokens[0][: 4 * len(steps)].sum(), blanks, rel_tol=1e-5)
    assert tokens[0][-len(REST) :].sum() < 0


@MODES
@given(PROOFS)
def test_maxrl_and_rewards_below_zero_keep_the_order(proofs: list) -> None:
    [found] = run_stages([group(proofs)], STAGES)
    rows = maxrl_advantages(found.rewards, AdvantageSettings())
    for proof, one, reward, row in zip(proofs, found.trajectories, found.rewards, rows, strict=True):
        tokens, _ = spread_over_tokens(reward or (), row or (), one.length)
        assert proof is None or tokens.max() <= 0


def test_answers_that_were_cut_keep_all_blame() -> None:
    given_ = group([[(4, "needed")], None], status="length")
    [found] = run_stages([given_], STAGES)
    assert [span.channel for span in found.rewards[0] or ()] == ["reward"]


def test_undecided_proofs_and_rewards_stay_as_they_are() -> None:
    given_ = group([[(4, "needed")], None])
    verdicts = (Verdict("undecided", None, "timeout"), given_.verdicts[1])
    [found] = run_stages([dataclasses.replace(given_, verdicts=verdicts, rewards=(None, ()))], STAGES)
    assert found.rewards[0] is None


def test_what_is_exempt_is_logged() -> None:
    [found] = run_stages([group([[(4, "needed"), (2, "idle")], None])], STAGES)
    assert found.metrics["subgoals/steps"] == 2.0
    assert math.isclose(found.metrics["subgoals/exempt"], 4 / (8 + len(REST)))
    assert found.stage_rewards["subgoals"] == (0.0, 0.0)
