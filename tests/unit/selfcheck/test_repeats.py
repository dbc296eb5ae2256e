"""Answers and seeds that repeat, rewards that are flat, and scoring again in another order: by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from rlpost.errors import SelfCheckError
from rlpost.selfcheck.rescoring import difference, mixed_up, orders, unscored, worth_rescoring
from rlpost.selfcheck.samples import FLAT_STEPS, Repeats, check_members
from rlpost.trajectory import Group, GroupReceipt, Ticket, one_turn
from rlpost.types import Prompt, SpanReward, Verdict
from support.trajectories import answer, receipt


def group(
    texts: Sequence[str], logprob: float | None = -12.0, name: str = "p", rewards: Sequence[float | None] | None = None
) -> GroupReceipt:
    values = rewards or [0.0] * len(texts)
    found = [
        answer(text, i, logprobs=None if logprob is None else [logprob / len(text)] * len(text))
        for i, text in enumerate(texts)
    ]
    spans = tuple(None if v is None else (SpanReward(0, t.length, v),) for v, t in zip(values, found, strict=True))
    verdicts = tuple(None if v is None else Verdict("accepted" if v else "rejected", v, "x") for v in values)
    return receipt(Group(Prompt(name, text="x"), tuple(found), verdicts, spans))


def test_equal_answers_end_a_run_only_beyond_chance() -> None:
    assert check_members([group(["ab", "cd"]), group(["ab", "ab"])]) == {"identical_groups": 0.5}
    assert check_members([group(["ab"] * 4, logprob=-1.0)]) == {"identical_groups": 1.0}  # a policy that is sure
    with pytest.raises(SelfCheckError, match=r"5 of 5 answers to prompt 'p' are the same.*e\^-12"):
        check_members([group(["ab"] * 5)])
    with pytest.raises(SelfCheckError, match="2 of 4 answers"):
        check_members([group(["ab", "ab", "cd", "ef"], logprob=-60.0)])
    assert check_members([group(["ab"] * 5, logprob=None)]) == {"identical_groups": 1.0}  # nobody knows how likely
    assert check_members([group(["ab"])]) == {}


def test_seeds_of_an_earlier_step_end_a_run_and_those_of_the_same_step_do_not() -> None:
    repeats = Repeats()
    repeats.check_seeds([(0, 1), (8, 9)], 0)
    repeats.check_seeds([(0, 1), (8, 9)], 0)  # rolled out again after a loss
    repeats.check_seeds([(16, 17)], 1)
    with pytest.raises(SelfCheckError, match="step 2 were used already, in step 0"):
        repeats.check_seeds([(8, 9)], 2)
    for seeds in ([(32, 33), (32, 33)], [(40, 40)]):
        with pytest.raises(SelfCheckError, match="in this step"):
            repeats.check_seeds(seeds, 3)
    repeats.forget()
    repeats.check_seeds([(8, 9)], 2)


def test_the_answers_of_the_last_time_end_a_run_beyond_chance() -> None:
    repeats = Repeats()
    repeats.check_answers([group(["ab", "cd"], -30.0)], 0)
    repeats.check_answers([group(["ab", "ce"], -30.0)], 1)
    repeats.check_answers([group(["ab", "ce"], -1.0)], 2)
    with pytest.raises(SelfCheckError, match=r"the same 2 answers at step 3 as the last time.*e\^-60"):
        repeats.check_answers([group(["ce", "ab"], -30.0)], 3)


def test_flat_rewards_are_said_once() -> None:
    repeats = Repeats()
    said = [repeats.flat([group(["ab", "c"], rewards=[1.0, 1.0])]) for _ in range(FLAT_STEPS + 3)]
    assert [line is not None for line in said] == [False] * (FLAT_STEPS - 1) + [True] + [False] * 3
    assert "got the reward 1" in str(said[FLAT_STEPS - 1])
    assert repeats.flat([group(["ab", "c"], rewards=[1.0, 0.0])]) is None
    assert repeats.flat([group(["ab"], rewards=[None])]) is None


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("mixed", ["rotated", "reversed", "swapped"])
def test_a_mixed_up_order_shows_in_another_order(size: int, mixed: str) -> None:
    """Rewards that all differ: every positional mix-up of these kinds shows at every seed."""
    right = group(["abcdefgh"[i] * (i + 1) for i in range(size)], rewards=[0.5 + i for i in range(size)])

    def mix(values: tuple) -> tuple:
        if mixed == "rotated":
            return values[1:] + values[:1]
        return values[::-1] if mixed == "reversed" else (values[1], values[0], *values[2:])

    def scored(one: GroupReceipt, positions: list[int]) -> GroupReceipt:
        verdicts = mix(tuple(right.verdicts[p] for p in positions))
        values = mix(tuple(right.rewards[p][0].value for p in positions))  # type: ignore[index]
        spans = tuple((SpanReward(0, t.length, v),) for t, v in zip(one.trajectories, values, strict=True))
        return dataclasses.replace(one, verdicts=verdicts, rewards=spans)

    first = scored(right, list(range(size)))
    found = []
    for seed in range(6):
        again, tried = [], orders(size, seed)
        for order in tried:
            turned = unscored(first, right.tokens, order)
            assert (turned.rewards, turned.verdicts) == ((), ())
            assert [t.text for t in turned.trajectories] == [right.trajectories[p].text for p in order]
            again.append(scored(turned, order))
        found.append(mixed_up(first, again, tried) is not None)
    assert sum(found) >= (6 if mixed != "swapped" else 1)


def test_a_sound_scorer_shows_no_difference_and_undecided_members_are_not_compared() -> None:
    one = group(["a", "b", "c", "d"], rewards=[0.0, 1.0, None, 0.0])
    [order] = orders(4, 1)
    turned = unscored(one, one.tokens, order)
    again = dataclasses.replace(
        turned, verdicts=tuple(one.verdicts[p] for p in order), rewards=tuple(one.rewards[p] for p in order)
    )
    assert difference(one, again, order) is None
    lost = dataclasses.replace(again, verdicts=(None,) * 4, rewards=(None,) * 4)
    assert difference(one, lost, order) is None
    assert unscored(one, one.tokens, [0, 1, 2, 3]).trajectories == one.trajectories


Paid = Callable[[Sequence[str]], Sequence[float]]


def paid(one: GroupReceipt, order: Sequence[int], rule: Paid) -> GroupReceipt:
    """A group in another order, paid by a rule for all its texts."""
    turned = unscored(one, one.tokens, order)
    values = rule([t.text for t in turned.tokens])
    spans = tuple((SpanReward(0, t.length, v),) for t, v in zip(turned.tokens, values, strict=True))
    return dataclasses.replace(turned, verdicts=(None,) * len(order), rewards=spans)


def first_of_each(texts: Sequence[str]) -> list[float]:
    return [float(text not in texts[:place]) for place, text in enumerate(texts)]


def by_length_rank(texts: Sequence[str]) -> list[float]:
    return [float(sorted(map(len, texts)).index(len(text))) for text in texts]


def over_the_mean(texts: Sequence[str]) -> list[float]:
    return [len(text) - sum(map(len, texts)) / len(texts) for text in texts]


@pytest.mark.parametrize("rule", [first_of_each, by_length_rank, over_the_mean])
@pytest.mark.parametrize("texts", [["a", "bcd"], ["a", "bcd", "a"], ["a", "bb", "a", "bb", "ccc"]])
def test_rewards_that_compare_the_answers_of_a_group_do_not_mix_them_up(rule: Paid, texts: list[str]) -> None:
    one = paid(group(texts), range(len(texts)), rule)
    for seed in range(6):
        tried = orders(len(texts), seed)
        assert mixed_up(one, [paid(one, order, rule) for order in tried], tried) is None


def test_a_model_that_rewards_may_round_otherwise_beside_other_answers() -> None:
    def rounded(texts: Sequence[str]) -> list[float]:
        return [7.0 + 0.5 * len(text) + 0.01 * place for place, text in enumerate(texts)]

    one = paid(group(["a", "bb", "ccc", "dddd"]), range(4), rounded)
    assert all(
        mixed_up(one, [paid(one, order, rounded) for order in orders(4, s)], orders(4, s)) is None for s in range(6)
    )


def test_answers_of_the_same_text_may_be_other_tokens() -> None:
    """What is left of an answer before a stop string, or without special tokens, may be the same by chance."""
    found = tuple(
        one_turn((1,), (10 + i, 20 + i), "", offsets=[(0, 0)] * 2, finish="stop", index=i, logprobs=[-20.0, -20.0])
        for i in range(6)
    )
    repeats, one = Repeats(), receipt(Group(Prompt("p", text="x"), found))
    assert check_members([one]) == {"identical_groups": 1.0}
    other = receipt(
        Group(Prompt("p", text="x"), tuple(dataclasses.replace(t, token_ids=t.token_ids + 1) for t in found))
    )
    repeats.check_answers([one], 0)
    repeats.check_answers([other], 1)
    with pytest.raises(SelfCheckError, match="the same 6 answers"):
        repeats.check_answers([other], 2)


def test_the_group_that_differs_most_is_scored_again() -> None:
    flat, some, most = (
        group(["a", "b"]),
        group(["a", "b"], rewards=[0.0, 1.0]),
        group(["a", "b", "c"], rewards=[0, 1, 2]),
    )
    assert worth_rescoring([flat, some, most, some]) is most
    assert worth_rescoring([flat]) is None
    assert worth_rescoring([]) is None


def test_every_prompt_is_asked_once_before_any_is_asked_again() -> None:
    def tickets(first: int, names: str) -> list[Ticket]:
        return [Ticket(first + i, name, (i,), 0) for i, name in enumerate(names)]

    repeats = Repeats()
    for first, names in ((0, "ab"), (0, "ab"), (2, "ca"), (4, "cb"), (6, "bac")):  # the second time after a loss
        repeats.check_prompts(tickets(first, names), 3)
    resumed = Repeats()
    resumed.check_prompts(tickets(5, "a" + "acb" + "cba"), 3)  # the end of a pass, and two more
    with pytest.raises(SelfCheckError, match=r"prompt 'a' is asked 5 times among 9 that were asked of 3 training"):
        Repeats().check_prompts(tickets(0, "ab" * 6), 3)
    with pytest.raises(SelfCheckError, match="3 times among 3"):
        Repeats().check_prompts(tickets(0, "aaa"), 8)
    forgotten = Repeats()
    forgotten.check_prompts(tickets(0, "aa"), 8)
    forgotten.forget()
    forgotten.check_prompts(tickets(0, "aa"), 8)
