"""Rewards of ranked lists by hand, through to the tokens' advantages. Not covered: verifying the items
(tests/unit/verifiers/test_catalog_*.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages, spread_over_tokens
from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.algorithms.ranking import dcg
from rlpost.errors import UserError
from rlpost.trajectory import FinishReason, Group, Trajectory, one_turn
from rlpost.types import Denominators, ItemVerdict, Prompt, Reward, SpanReward, Verdict
from rlpost_rewards.ranking import Ranking, exp_returns, log_returns, token_span

HITS = [0, 1, 0, 0, 1]
LOST = Verdict("undecided", None, "crashed")


def listed(lines: list[str], index: int = 0, reason: FinishReason = "stop", ended: bool = True) -> Trajectory:
    """A prompt of one token, and an answer with a token per word, newlines as part of the word before them, and an end
    token without text.
    """
    text, offsets = "", []
    for line in lines:
        for word in line.replace("\n", "").split(" "):
            offsets.append((len(text), len(text) + len(word) + 1))
            text += f"{word} "
        text = text[:-1] + "\n"
    if ended:
        offsets.append((len(text), len(text)))
    return one_turn((1,), range(len(offsets)), text, offsets=offsets, finish=reason, index=index)


def verdict(one: Trajectory, scores: list[float]) -> Verdict:
    items, start = [], 0
    for rank, score in enumerate(scores):
        stop = one.text.index("\n", start) + 1
        items.append(
            ItemVerdict(start, stop, "accepted" if score else "rejected", score, "hit" if score else "wrong", rank)
        )
        start = stop
    return Verdict("accepted" if any(scores) else "rejected", float(sum(scores)), "list", tuple(items))


def group(*lists: tuple[list[str], list[float]], **options: Any) -> Group:
    members = tuple(listed(lines, i, **options) for i, (lines, _) in enumerate(lists))
    verdicts = tuple(verdict(one, scores) for one, (_, scores) in zip(members, lists, strict=True))
    return Group(Prompt("p", text="p"), members, verdicts, ((),) * len(lists))


def spans(reward: Reward | None, channel: str = "reward") -> list[tuple[int, int, float, int]]:
    assert reward is not None
    return [(s.start, s.stop, round(s.value, 4), s.index) for s in reward if s.channel == channel]


def test_returns_by_hand() -> None:
    assert dcg(HITS) == pytest.approx(1.0178, abs=1e-4)
    assert log_returns(HITS) == pytest.approx([1.0178, 1.0178, 0.3869, 0.3869, 0.3869], abs=1e-4)
    assert log_returns(HITS)[0] == pytest.approx(dcg(HITS))
    assert exp_returns(HITS, 2.0) == [0.5625, 1.125, 0.25, 0.5, 1.0]
    assert exp_returns(HITS, float("inf")) == HITS
    assert (dcg([]), log_returns([]), exp_returns([], 2.0)) == (0.0, [], [])


def test_tokens_belong_to_the_item_in_which_they_begin() -> None:
    # the second token covers ")\nB": it begins in the first item
    one = one_turn((1,), (1, 2, 3, 4), "A)\nBC", offsets=((0, 1), (1, 4), (4, 5), (5, 5)))
    assert token_span(one.turns[0], 0, 3) == (1, 3)
    assert token_span(one.turns[0], 3, 5) == (3, 5)  # with the end token


LIST = ["A b (1999)", "C (2000)", "D e f (2001)"]
# tokens: prompt = 0, A b (1999) = 1-3, C (2000) = 4-5, D e f (2001) = 6-9, end = 10


def test_every_rank_is_a_span_and_the_end_token_belongs_to_the_last() -> None:
    [reward] = Ranking(size=3)(group((LIST, [0, 1, 0])))
    assert spans(reward) == [(1, 4, 0.0, 0), (4, 6, 1.0, 1), (6, 11, 0.0, 2)]
    assert spans(reward, "advantage") == []


def test_ranks_that_are_missing_have_no_tokens_and_the_early_end_is_told() -> None:
    [reward] = Ranking(size=5, returns="log")(group((LIST, [0, 1, 0])))
    assert spans(reward) == [(1, 4, 0.6309, 0), (4, 6, 0.6309, 1), (6, 11, 0.0, 2), (11, 11, 0.0, 3), (11, 11, 0.0, 4)]
    assert spans(reward, "advantage") == [(10, 11, -0.1, -1)]
    [dropped] = Ranking(size=5, missing="drop")(group((LIST, [0, 1, 0])))
    assert [index for *_, index in spans(dropped)] == [0, 1, 2]


def test_overflow_after_the_last_rank_is_penalised_per_token_or_per_item() -> None:
    [reward] = Ranking(size=1)(group((LIST, [1, 1, 0])))
    assert spans(reward) == [(1, 4, 1.0, 0), (4, 6, 0.0, -2), (6, 11, 0.0, -2)]
    assert spans(reward, "advantage") == [(4, 6, -0.1, -2), (6, 11, -0.1, -2)]
    [shared] = Ranking(size=1, overflow_share="item")(group((LIST, [1, 1, 0])))
    assert spans(shared, "advantage") == [(4, 6, -0.05, -2), (6, 11, -0.02, -2)]


def test_the_released_code_pays_the_end_token_for_a_complete_list() -> None:
    # this list ends with a line break; see the next test
    [reward] = Ranking("released_code", size=3, end_rank="item")(group((LIST, [0, 0, 1])))
    assert spans(reward) == [(1, 4, 0.0, 0), (4, 6, 0.0, 1), (6, 10, 1.0, 2), (10, 11, 0.0, -1)]
    assert spans(reward, "advantage") == [(10, 11, 0.1, -1)]


def shaped(lines: list[str], newlines: int, size: int, recipe: str = "released_code", **settings: Any) -> list:
    """Advantage spans of a list of misses with so many line breaks after its last item, each a token of its own."""
    offsets, text, items = [], "", []
    for number, line in enumerate(lines):
        start = len(text)
        text += line + ("\n" if number < len(lines) - 1 else "\n" * newlines)
        offsets += [(start, start + len(line))] + [(i, i + 1) for i in range(start + len(line), len(text))]
        items.append(ItemVerdict(start, len(text), "rejected", 0.0, "wrong", number))
    offsets.append((len(text), len(text)))
    one = one_turn((1,), range(len(offsets)), text, offsets=tuple(offsets), finish="stop")
    judged = Group(Prompt("p", text="p"), (one,), (Verdict("rejected", 0.0, "list", tuple(items)),), ((),))
    [reward] = Ranking(recipe, size=size, **settings)(judged)  # type: ignore[arg-type]
    return spans(reward, "advantage")


def test_the_released_code_counts_a_line_break_before_the_end_as_a_rank() -> None:
    # tokens: prompt 0, A 1, newline 2, B 3, then line breaks, then the end token
    assert shaped(["A", "B"], 0, size=2) == [(4, 5, 0.1, -1)]
    assert shaped(["A", "B"], 1, size=2) == [(5, 6, -0.1, -1)]  # one beyond rank 2
    assert shaped(["A", "B"], 1, size=3) == [(5, 6, 0.1, -1)]  # counts as complete
    assert shaped(["A", "B"], 2, size=3) == [(6, 7, -0.1, -1)]
    assert shaped(["A", "B"], 1, size=4) == [(5, 6, -0.1, -1)]
    # the paper counts items
    assert shaped(["A", "B"], 1, size=2, recipe="paper") == []
    assert shaped(["A", "B"], 1, size=3, recipe="paper") == [(5, 6, -0.1, -1)]
    assert shaped(["A", "B"], 1, size=2, end_rank="item") == [(5, 6, 0.1, -1)]


def test_the_released_code_charges_every_token_of_an_overlong_list_its_end_token_included() -> None:
    # A and newline are rank 0; B (and its line break) is beyond, and so is the end token
    assert shaped(["A", "B"], 0, size=1) == [(4, 5, -0.1, -1), (3, 4, -0.1, -2)]
    assert shaped(["A", "B"], 1, size=1) == [(5, 6, -0.1, -1), (3, 5, -0.1, -2)]
    # the paper's end token is part of the last item and is charged with it, once
    for end_rank in ("item", "line"):
        assert shaped(["A", "B"], 0, size=1, recipe="paper", end_rank=end_rank) == [(3, 5, -0.1, -2)]
    per_token, _ = spread_over_tokens(*_laid(["A", "B"], 1), 6)
    assert per_token.tolist() == pytest.approx([0, 0, 0, -0.1, -0.1, -0.1])


def _laid(lines: list[str], newlines: int) -> tuple[Reward, list[float]]:
    found = tuple(SpanReward(a, b, v, i, "advantage") for a, b, v, i in shaped(lines, newlines, size=1))
    return found, [span.value for span in found]


def test_a_list_that_was_cut_has_not_ended_early() -> None:
    [reward] = Ranking(size=5)(group((LIST, [0, 1, 0]), reason="length", ended=False))
    assert spans(reward, "advantage") == []


def test_shaping_as_a_reward_is_measured_against_the_group() -> None:
    found = Ranking(size=2, shaping="reward")(group((LIST, [0, 1, 0]), (LIST[:2], [0, 0]), (LIST[:1], [0])))
    faults = [{index: value for _, _, value, index in spans(r) if index < -2} for r in found]
    assert faults == [{-3: 0.0, -4: -0.1}, {-3: 0.0, -4: 0.0}, {-3: -0.1, -4: 0.0}]
    rows = group_advantages(found, AdvantageSettings(std=False))
    assert all(row is not None for row in rows)


def test_the_whole_list_is_one_reward_for_the_baselines() -> None:
    [reward] = Ranking(size=3, returns="sequence")(group((LIST, [0, 1, 1])))
    assert spans(reward) == [(0, 11, round(0.6309 + 0.5, 4), 0)]


def test_undecided_lists_stay_undecided_and_empty_ones_earn_nothing() -> None:
    judged = group((LIST, [0, 1, 0]))
    open_ = Group(judged.prompt, judged.trajectories, (LOST,), (None,))
    assert list(Ranking()(open_)) == [None]
    empty = listed([])
    verdicts = (Verdict("rejected", 0.0, "empty"),)
    [reward] = Ranking(size=2)(Group(judged.prompt, (empty,), verdicts, ((),)))
    assert spans(reward) == [(2, 2, 0.0, 0), (2, 2, 0.0, 1)]
    assert spans(reward, "advantage") == [(1, 2, -0.1, -1)]


def wordy(text: str, found: list[tuple[int, int, float]], ended: bool = True) -> Group:
    """A text with one token per character after a prompt of one, and items at these character spans."""
    offsets = tuple((i, i + 1) for i in range(len(text))) + (((len(text),) * 2,) if ended else ())
    one = one_turn((1,), (5,) * len(offsets), text, offsets=offsets, finish="stop" if ended else "length")
    items = tuple(ItemVerdict(a, b, "rejected", score, "x", i) for i, (a, b, score) in enumerate(found))
    return Group(Prompt("p", text="x"), (one,), (Verdict("rejected", 0.0, "x", items),), ((),))


def test_text_without_items_is_a_failed_attempt_at_the_next_rank() -> None:
    # nothing but prose, cut by the limit: all of it was an attempt at rank 0
    [reward] = Ranking(size=3)(wordy("blah", [], ended=False))
    assert spans(reward) == [(1, 5, 0.0, 0), (5, 5, 0.0, 1), (5, 5, 0.0, 2)]
    # an item and prose after it
    [reward] = Ranking(size=3)(wordy("AAxx", [(0, 2, 1.0)], ended=False))
    assert spans(reward) == [(1, 3, 1.0, 0), (3, 5, 0.0, 1), (5, 5, 0.0, 2)]
    # the end token belongs to what is before it, or is a span of its own
    [reward] = Ranking(size=3)(wordy("AAxx", [(0, 2, 1.0)]))
    assert spans(reward)[1] == (3, 6, 0.0, 1)
    [reward] = Ranking("released_code", size=3)(wordy("AAxx", [(0, 2, 1.0)]))
    assert (spans(reward)[1], spans(reward)[-1]) == ((3, 5, 0.0, 1), (5, 6, 0.0, -1))
    # text after the last rank is overflow
    [reward] = Ranking(size=1)(wordy("AAxx", [(0, 2, 1.0)]))
    assert spans(reward) == [(1, 3, 1.0, 0), (3, 6, 0.0, -2)]
    assert spans(reward, "advantage") == [(3, 6, -0.1, -2)]


def test_in_a_group_text_without_items_is_pushed_down() -> None:
    prose, hit = wordy("blah", [], ended=False), wordy("AAAA", [(0, 2, 1.0), (2, 4, 0.0)], ended=False)
    judged = Group(prose.prompt, prose.trajectories + hit.trajectories, prose.verdicts + hit.verdicts, ((), ()))
    rewards = Ranking(size=2)(judged)
    [low, high] = group_advantages(rewards, AdvantageSettings())
    per_token, _ = spread_over_tokens(rewards[0] or (), low or (), 5)
    assert (per_token[1:] < 0).all()
    assert high is not None
    assert high[0] > 0


def pushes(scores: list[float]) -> np.ndarray:
    """-∂L/∂log p of a prompt's token and the tokens of a list, in a group with one that hits nothing; ratio and aggregation by rank."""
    judged = group((LIST, scores), (LIST, [0, 0, 0]))
    rewards = Ranking(size=3)(judged)
    advantages = group_advantages(rewards, AdvantageSettings(eps=1e-4))
    rows = [spread_over_tokens(r or (), a or (), 11) for r, a in zip(rewards, advantages, strict=True)]
    logprobs = torch.full((2, 11), -1.0, requires_grad=True)
    inputs = LossInputs(
        logprobs=logprobs, proximal_logprobs=logprobs.detach(),
        mask=torch.from_numpy(np.stack([one.mask for one in judged.trajectories])),
        advantages=torch.from_numpy(np.stack([a for a, _ in rows])),
        span_ids=torch.from_numpy(np.stack([s for _, s in rows])),
    )  # fmt: skip
    loss, _ = policy_loss(inputs, LossSettings(ratio="span", aggregate="span"), Denominators(20, 2, 6, 16))
    loss.backward()
    assert logprobs.grad is not None
    return -logprobs.grad[0].numpy()


def test_a_hit_that_moves_moves_the_gradient_with_it_and_every_rank_weighs_the_same() -> None:
    for rank, tokens in enumerate(((1, 4), (4, 6), (6, 11))):
        scores = [0.0] * 3
        scores[rank] = 1.0
        found = pushes(scores)
        inside = found[slice(*tokens)]
        assert (np.delete(found, np.r_[slice(*tokens)]) == 0).all()
        # the standardised advantage of one hit in two lists is 1/√2 (σ + 1e-4), over 6 spans, shared by the tokens
        assert inside.sum() == pytest.approx(np.sqrt(0.5) / 6, rel=1e-3)
        assert np.allclose(inside, inside[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"gamma": 1.0}, "gamma is 1.0"),
        ({"returns": "best"}, "returns is 'best'"),
        ({"sise": 3}, "'sise' is no setting"),
        ({"recipe": "mine"}, "recipe is 'mine'"),
    ],
)
def test_an_invalid_setting_is_named(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ranking(**settings)


def test_repetitions_seen_items_and_inventions_cost_what_is_configured() -> None:
    one = listed(["a\n", "b\n", "c\n", "d\n", "e\n"])
    reasons = [("hit", 1.0), ("duplicate", 0.0), ("seen", 0.0), ("out_of_catalog", 0.0), ("unparsable", 0.0)]
    items = tuple(
        ItemVerdict(2 * rank, 2 * rank + 2, "rejected", score, reason, rank)
        for rank, (reason, score) in enumerate(reasons)
    )
    judged = Group(Prompt("p", text="p"), (one,), (Verdict("accepted", 0.5, "hits", items),), ((),))
    stage = Ranking(size=5, repeated=-0.5, seen=-0.25, outside=-1.0)
    [reward] = stage(judged)
    assert [value for _, _, value, index in spans(reward) if index >= 0] == [1.0, -0.5, -0.25, -1.0, -1.0]
    assert stage.floor == -1.0
    [whole] = Ranking(size=5, returns="sequence", repeated=-0.5)(judged)
    assert spans(whole)[0][2] == round(dcg([1.0, -0.5, 0.0, 0.0, 0.0]), 4)
    [free] = Ranking(size=5)(judged)
    assert [value for _, _, value, index in spans(free) if index >= 0] == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_list_gains_nothing_by_ending_before_a_repetition() -> None:
    """A missing rank counts as the group's least relevance there."""
    long, short = listed(["a\n", "a\n"]), listed(["a\n"], index=1)
    hit, again = ItemVerdict(0, 2, "accepted", 1.0, "hit"), ItemVerdict(2, 4, "rejected", 0.0, "duplicate", 1)
    verdicts = Verdict("accepted", 1.0, "hits", (hit, again)), Verdict("accepted", 1.0, "hits", (hit,))
    found = Ranking(size=2, repeated=-0.5)(Group(Prompt("p", text="p"), (long, short), verdicts, ((), ())))
    assert [[value for _, _, value, index in spans(one) if index == 1] for one in found] == [[-0.5], [-0.5]]


@pytest.mark.parametrize("name", ["repeated", "seen", "outside"])
def test_a_fault_cannot_pay(name: str) -> None:
    for value in (0.1, float("nan"), float("-inf")):
        with pytest.raises(UserError, match=f"ranking: {name} is"):
            Ranking(**{name: value})
