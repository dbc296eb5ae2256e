"""Correct answers of the starting policy, followed through a run to see which become likelier."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlpost.algorithms.groups import correct
from rlpost.algorithms.sharpening import likelihood_ranks, uplift_by_rank
from rlpost.trajectory import GroupReceipt, Trajectory, one_turn

Loglikelihoods = Callable[[Sequence[Trajectory]], Sequence[np.ndarray]]
"""Function from trajectories to the log-probabilities of their sampled tokens under the current policy."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A correct answer drawn from the starting policy.

    Attributes:
        prompt_id: id of its prompt.
        prompt_ids: token ids of the prompt.
        token_ids: token ids of the answer.
        rank: its rank by probability in its group, wrong answers included; 0 is the likeliest.
        logprob: its log-probability at the start, summed over tokens.
    """

    prompt_id: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    rank: int
    logprob: float


def follow(
    groups: Sequence[GroupReceipt], fetch: Callable[[Any], Sequence[Trajectory]], score: Loglikelihoods
) -> list[Followed]:
    """Choose the correct answers of scored groups that the policy has just sampled.

    Args:
        groups: scored groups of one turn.
        fetch: resolves the handle of a group's trajectories.
        score: log-probabilities under the starting policy.
    """
    members = [fetch(group.tokens) for group in groups]
    likelihoods = iter(score([trajectory for group in members for trajectory in group]))
    followed: list[Followed] = []
    for group, trajectories in zip(groups, members, strict=True):
        sums = [float(np.sum(next(likelihoods), dtype=np.float64)) for _ in trajectories]
        for member, rank in enumerate(likelihood_ranks(sums)):
            one = trajectories[member]
            if correct(group, member) and one.sampled:
                prompt, answer = one.token_ids[: one.prompt_tokens], one.token_ids[one.prompt_tokens :]
                ids = tuple(prompt.tolist()), tuple(answer.tolist())
                followed.append(Followed(group.prompt.id, *ids, rank, sums[member]))
    return followed


def measure(followed: Sequence[Followed], score: Loglikelihoods) -> dict[str, object]:
    """Compare the likelihood of the followed answers under the current policy with that at the start.

    Returns:
        ``share`` that became likelier, ``change`` (mean, nats per answer), and ``by_rank``: rows of rank, number of
        answers, number that rose, mean change.
    """
    answers = [one_turn(f.prompt_ids, f.token_ids) for f in followed]
    now = [float(np.sum(values, dtype=np.float64)) for values in score(answers)]
    before = [f.logprob for f in followed]
    rows = uplift_by_rank([f.rank for f in followed], before, now)
    return {
        "share": sum(row.rose for row in rows) / len(followed),
        "change": float(np.mean(np.subtract(now, before))),
        "by_rank": [[row.rank, row.count, row.rose, row.change] for row in rows],
    }


def write(followed: Sequence[Followed], path: Path) -> None:
    """Write followed answers for later evaluations of the run."""
    path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in followed))


def read(path: Path) -> list[Followed]:
    """Read the answers that `write` wrote."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Followed(**{**row, **{key: tuple(row[key]) for key in ("prompt_ids", "token_ids")}}) for row in rows]
