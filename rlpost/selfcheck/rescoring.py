"""Does an answer keep its reward when the answers of its group come in another order?

A scorer that mixes up answers pays the right rewards to the wrong ones: the mean looks healthy and nothing is learned.
No group shows that by itself; the same group in another order does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlpost.trajectory import GroupReceipt
from rlpost.types import Reward

SAME = 0.05
"""Share of the spread of a group's results within which two of them are the same: a model that rewards rounds otherwise
where an answer has other neighbours, and results that are mixed up differ by the spread itself."""

ROUNDS = 10
"""Times that a suspicion is scored again in each order: a judge that tosses a coin for an answer gives the same two
results each time with a chance of 1 in 4¹⁰."""


def worth_rescoring(groups: Sequence[GroupReceipt]) -> GroupReceipt | None:
    """The group whose members differ most in reward, None if none differ: order shows only there."""

    def distinct(group: GroupReceipt) -> int:
        return len({_values(reward) for reward in group.rewards if reward is not None})

    best = max(groups, key=distinct, default=None)
    return best if best is not None and distinct(best) > 1 else None


def unscored(group: GroupReceipt, trajectories: Sequence[Any], order: Sequence[int]) -> GroupReceipt:
    """A copy of a group with its members in this order, and nothing that a scorer has said of them."""
    return replace(
        group,
        trajectories=tuple(group.trajectories[place] for place in order),
        tokens=tuple(trajectories[place] for place in order),
        verdicts=(),
        rewards=(),
        stage_rewards={},
        metrics={},
        extras={},
        evidence=None,
        proximal=None,
    )


def orders(count: int, seed: int) -> list[list[int]]:
    """Orders in which the usual ways to mix up, rotations and reversals, give another result: one, as a rule.

    Of two members no such order exists: each of them is scored beside a copy of itself.

    Args:
        count: number of members, at least two.
        seed: draws the order.
    """
    if count == 2:
        return [[0, 0], [1, 1]]
    source = np.random.default_rng(seed)
    usual = [[(place + 1) % count for place in range(count)], list(reversed(range(count)))]
    while True:
        order = [int(place) for place in source.permutation(count)]
        if all([order[place] for place in mixed] != [mixed[place] for place in order] for mixed in usual):
            return [order]


def mixed_up(group: GroupReceipt, again: Sequence[GroupReceipt], in_orders: Sequence[Sequence[int]]) -> str | None:
    """What shows that the order of answers matters, in words, or None.

    Args:
        group: the group as it was scored.
        again: the same group, scored in `orders`.
        in_orders: these.
    """
    if len(in_orders) == 1:
        return difference(group, again[0], in_orders[0])
    for what, results in (("verdict", _verdicts), ("reward", _rewards)):
        (one, other), (first, second) = results(group), map(results, again)
        if one is None or other is None or None in first or None in second:
            continue
        tolerance = SAME * _spread(results(group))
        crossed = _alike(first, [other, other], tolerance) and _alike(second, [one, one], tolerance)
        if crossed and not _alike([one], [other], tolerance):
            return f"beside a copy of itself, each of the two gets the {what} that the other one had"
    return None


def difference(group: GroupReceipt, again: GroupReceipt, order: Sequence[int]) -> str | None:
    """What members got the second time, in words, if it is something else; undecided ones are not compared.

    Answers with the same text are compared together: a reward may pay the first of them only.

    Args:
        group: the group as it was scored.
        again: the same group, scored in another order.
        order: where each member of ``again`` was in ``group``, each once.
    """
    copies: dict[bytes, list[tuple[int, int]]] = {}
    for place, member in enumerate(order):
        copies.setdefault(group.trajectories[member].text, []).append((member, place))
    for results in (_verdicts, _rewards):
        before, after = results(group), results(again)
        tolerance = SAME * _spread(before)
        for pairs in copies.values():
            old, new = [before[member] for member, _ in pairs], [after[place] for _, place in pairs]
            if None not in old and None not in new and not _alike(old, new, tolerance):
                who = ", ".join(str(member) for member, _ in pairs)
                return f"answer {who} got {_said(old)} and then {_said(new)}"
    return None


_Result = tuple[tuple[object, ...], tuple[float, ...]]
"""What must be equal, and numbers that must be close."""


def _verdicts(group: GroupReceipt) -> list[_Result | None]:
    decided = [None if v is None or v.outcome == "undecided" else v for v in group.verdicts]
    return [None if v is None else ((v.outcome,), () if v.score is None else (v.score,)) for v in decided]


def _rewards(group: GroupReceipt) -> list[_Result | None]:
    return [
        None if reward is None else (tuple((s.stage, s.index) for s in reward), tuple(s.value for s in reward))
        for reward in group.rewards
    ]


def _spread(found: Sequence[_Result | None]) -> float:
    values = [value for result in found if result is not None for value in result[1]]
    return max(values) - min(values) if values else 0.0


def _alike(old: Sequence[_Result | None], new: Sequence[_Result | None], tolerance: float) -> bool:
    """Whether both hold the same results, in whatever order."""
    pairs = zip(sorted(filter(None, old)), sorted(filter(None, new)), strict=True)  # pyright: ignore[reportArgumentType]
    return all(a[0] == b[0] and np.allclose(a[1], b[1], rtol=1e-6, atol=tolerance) for a, b in pairs)


def _said(found: Sequence[_Result | None]) -> str:
    return " and ".join(
        ", ".join([*(str(fact) for fact in result[0] if isinstance(fact, str)), *(f"{v:.6g}" for v in result[1])])
        for result in found
        if result is not None
    )


def _values(reward: Reward) -> tuple[tuple[str, int, float], ...]:
    return tuple((span.stage, span.index, span.value) for span in reward)
