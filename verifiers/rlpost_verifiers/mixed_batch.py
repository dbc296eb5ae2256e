"""One batch in which questions with known answers stand in a shuffled order, some of them twice.

Training asks a verifier in batches, in which right and wrong answers are mixed and equal answers occur several times. A
conformance check that asked for all right answers first would also pass a verifier whose verdicts come in another order
than its questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from rlpost.errors import SelfCheckError
from rlpost.types import Verdict, VerifyItem

VerifyBatch = Callable[[list[VerifyItem]], Sequence[Verdict]]

_SEED = 7


def ask_mixed(verify_batch: VerifyBatch, items: Sequence[VerifyItem], twice: int | None = None) -> list[list[Verdict]]:
    """Ask for all items in one batch.

    Args:
        verify_batch: the verifier's own method.
        items: the questions.
        twice: number of items, the first ones, that occur twice; None: all.

    Returns:
        One or two verdicts for each item.

    Raises:
        SelfCheckError: for another number of verdicts than of questions.

    >>> shout = lambda items: [Verdict("accepted", 1.0, item.text) for item in items]
    >>> [[v.reason for v in found] for found in ask_mixed(shout, [VerifyItem({}, t) for t in "abc"], twice=1)]
    [['a', 'a'], ['b'], ['c']]
    """
    order = [*range(len(items)), *range(len(items) if twice is None else min(twice, len(items)))]
    random.Random(_SEED).shuffle(order)
    answers = verify_batch([items[number] for number in order])
    if len(answers) != len(order):
        raise SelfCheckError(
            f"verify_batch answered {len(answers)} verdicts for {len(order)} items; one each is needed"
        )
    found: list[list[Verdict]] = [[] for _ in items]
    for number, verdict in zip(order, answers, strict=True):
        found[number].append(verdict)
    return found


def decisive(found: Sequence[Verdict], accepted: bool) -> Verdict:
    """The verdict that counts among those on one item: the first that is not as it should be, or else the first.

    Args:
        found: the verdicts.
        accepted: whether the item must be accepted.
    """
    return next((verdict for verdict in found if (verdict.outcome == "accepted") != accepted), found[0])
