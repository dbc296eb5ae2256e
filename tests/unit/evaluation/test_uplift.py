"""Followed answers by hand, with a scorer that answers from a table. Not covered: the learner's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.evaluation import uplift
from rlpost.trajectory import Group, Trajectory, one_turn
from rlpost.types import Prompt, Verdict
from support.trajectories import receipt

RIGHT, WRONG = Verdict("accepted", 1.0, "proved"), Verdict("rejected", 0.0, "failed")


GROUP = receipt(
    Group(
        Prompt("p", text="p"),
        tuple(one_turn((1, 2), ids, index=index) for index, ids in enumerate([(5, 6), (7,), (8,), ()])),
        (RIGHT, WRONG, RIGHT, RIGHT),
        ((), (), (), ()),
    )
)


def scorer(table: dict[tuple[int, ...], list[float]]) -> uplift.Loglikelihoods:
    """Log-probabilities by the tokens of an answer to the prompt 1, 2."""

    def score(trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        assert all(one.token_ids[:2].tolist() == [1, 2] for one in trajectories)
        return [np.asarray(table.get(tuple(one.token_ids[2:].tolist()), []), np.float32) for one in trajectories]

    return score


def fetch(handle: Any) -> Any:
    """A handle is the thing itself."""
    return handle


def test_right_answers_are_followed_with_their_rank_among_all() -> None:
    found = uplift.follow([GROUP], fetch, scorer({(5, 6): [-1.0, -2.0], (7,): [-0.5], (8,): [-4.0]}))
    # the empty completion is the likeliest (0) and is not followed
    assert [(f.token_ids, f.rank, f.logprob) for f in found] == [((5, 6), 2, -3.0), ((8,), 3, -4.0)]
    assert {f.prompt_ids for f in found} == {(1, 2)}


def test_they_survive_the_file_and_are_measured(tmp_path: Path) -> None:
    followed = uplift.follow([GROUP], fetch, scorer({(5, 6): [-1.0, -2.0], (7,): [-0.5], (8,): [-4.0]}))
    uplift.write(followed, tmp_path / "f.jsonl")
    assert uplift.read(tmp_path / "f.jsonl") == followed
    found = uplift.measure(followed, scorer({(5, 6): [-0.5, -1.5], (8,): [-6.0]}))
    assert found == {"share": 0.5, "change": pytest.approx(-0.5), "by_rank": [[2, 1, 1, 1.0], [3, 1, 0, -2.0]]}
