"""When a run stops because its verifier does not decide. The loop itself is run for real in tests/ray."""

from __future__ import annotations

import pytest

from rlpost.errors import InfrastructureError
from rlpost.pipeline import check_undecided
from rlpost.types import Completion, Group, Prompt, SpanReward, Verdict

LOST = Verdict("undecided", None, "crashed")
WRONG = Verdict("rejected", 0.0, "failed")


def batch(lost: int, decided: int) -> list[Group]:
    total = lost + decided
    completions = tuple(Completion("p", i, (1,), (2,), ((0, 1),), None, "x", "stop", 0, i) for i in range(total))
    verdicts = (LOST,) * lost + (WRONG,) * decided
    rewards = (None,) * lost + ((SpanReward(0, 1, 0.0),),) * decided
    return [Group(Prompt("p", text="p"), completions, verdicts, rewards)]


def test_a_batch_that_is_lost_is_forgiven_by_those_around_it() -> None:
    check_undecided([batch(0, 8), batch(6, 2), batch(0, 8)], limit=0.25)


def test_the_share_over_the_window_stops_the_run_with_the_commonest_reason() -> None:
    with pytest.raises(
        InfrastructureError, match=r"38% of the last 2 batches stayed undecided \(limit 25%\).*'crashed'"
    ):
        check_undecided([batch(0, 8), batch(6, 2)], limit=0.25)


def test_the_first_batch_stands_alone() -> None:
    with pytest.raises(InfrastructureError, match="100% of the last 1 batches"):
        check_undecided([batch(4, 0)], limit=0.5)
