"""Correct answers of the starting policy, followed through a run to see which become likelier."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rlpost.algorithms.groups import correct
from rlpost.algorithms.sharpening import likelihood_ranks, uplift_by_rank
from rlpost.types import Completion, Group

Loglikelihoods = Callable[[Sequence[Completion]], Iterator[np.ndarray]]
"""Function from completions to their log-probabilities ``[T]`` under the current policy."""


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


def follow(groups: Sequence[Group], score: Loglikelihoods) -> list[Followed]:
    """Choose the correct answers of scored groups that the policy has just sampled."""
    likelihoods = score([c for group in groups for c in group.completions])
    followed: list[Followed] = []
    for group in groups:
        sums = [float(np.sum(next(likelihoods), dtype=np.float64)) for _ in group.completions]
        for member, rank in enumerate(likelihood_ranks(sums)):
            completion = group.completions[member]
            if correct(group, member) and completion.token_ids:
                ids = completion.prompt_ids, completion.token_ids
                followed.append(Followed(group.prompt.id, *ids, rank, sums[member]))
    return followed


def measure(followed: Sequence[Followed], score: Loglikelihoods) -> dict[str, object]:
    """Compare the likelihood of the followed answers under the current policy with that at the start.

    Returns:
        ``share`` that became likelier, ``change`` (mean, nats per answer), and ``by_rank``: rows of rank, number of
        answers, number that rose, mean change.
    """
    completions = [
        Completion(f.prompt_id, 0, f.prompt_ids, f.token_ids, ((0, 0),) * len(f.token_ids), None, "", "stop", 0, 0)
        for f in followed
    ]
    now = [float(np.sum(values, dtype=np.float64)) for values in score(completions)]
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
