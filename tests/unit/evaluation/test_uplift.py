"""Followed answers by hand, with a scorer that answers from a table. Not covered: the learner's own figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from rlpost.evaluation import uplift
from rlpost.types import Completion, Group, Prompt, Verdict

RIGHT, WRONG = Verdict("accepted", 1.0, "proved"), Verdict("rejected", 0.0, "failed")


def completion(index: int, ids: tuple[int, ...]) -> Completion:
    return Completion("p", index, (1, 2), ids, ((0, 0),) * len(ids), None, "", "stop", 0, index)


GROUP = Group(
    Prompt("p", text="p"),
    (completion(0, (5, 6)), completion(1, (7,)), completion(2, (8,)), completion(3, ())),
    (RIGHT, WRONG, RIGHT, RIGHT),
    ((), (), (), ()),
)


def scorer(table: dict[tuple[int, ...], list[float]]) -> uplift.Loglikelihoods:
    def score(completions: Sequence[Completion]) -> Iterator[np.ndarray]:
        for one in completions:
            yield np.asarray(table.get(one.token_ids, []), np.float32)

    return score


def test_right_answers_are_followed_with_their_rank_among_all() -> None:
    found = uplift.follow([GROUP], scorer({(5, 6): [-1.0, -2.0], (7,): [-0.5], (8,): [-4.0]}))
    # the empty completion is the likeliest (0) and is not followed
    assert [(f.token_ids, f.rank, f.logprob) for f in found] == [((5, 6), 2, -3.0), ((8,), 3, -4.0)]


def test_they_survive_the_file_and_are_measured(tmp_path: Path) -> None:
    followed = uplift.follow([GROUP], scorer({(5, 6): [-1.0, -2.0], (7,): [-0.5], (8,): [-4.0]}))
    uplift.write(followed, tmp_path / "f.jsonl")
    assert uplift.read(tmp_path / "f.jsonl") == followed
    found = uplift.measure(followed, scorer({(5, 6): [-0.5, -1.5], (8,): [-6.0]}))
    assert found == {"share": 0.5, "change": pytest.approx(-0.5), "by_rank": [[2, 1, 1, 1.0], [3, 1, 0, -2.0]]}
