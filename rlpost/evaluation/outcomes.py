"""Outcomes of the samples of held-out prompts, and the metrics computed from them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlpost.algorithms.intervals import with_errors
from rlpost.algorithms.passk import pass_at_k
from rlpost.algorithms.sharpening import flips
from rlpost.errors import DataError, InfrastructureError, describe_error
from rlpost.evaluation.lists import Listed, list_figures, popularity_shift

RIGHT, WRONG, OPEN, GRADED = "1", "0", "?", "."


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcomes of one prompt's samples, a character each: ``1`` accepted, ``0`` rejected, ``?`` undecided, ``.`` graded
    by rewards alone, which do not say what is right.

    Attributes:
        id: id of the prompt.
        samples: one character per sample, in the order they were drawn.
        distinct: number of different texts among the accepted samples.
        greedy: one character for the greedy answer; empty if none was asked for.
        listed: the greedy answer as a scored list; None for an answer that is no list.
        rewards: reward of each sample, None where undecided.
        greedy_reward: reward of the greedy answer.
        unfinished: whether every decided sample was cut and counts as wrong, so that its reward is the floor: there was
            no finished one to compare it with.
        greedy_unfinished: the same of the greedy answer.

    >>> Outcome("t1", "10?1", 2, "1").accepted
    2
    """

    id: str
    samples: str
    distinct: int
    greedy: str = ""
    listed: Listed | None = None
    rewards: tuple[float | None, ...] = ()
    greedy_reward: float | None = None
    unfinished: bool = False
    greedy_unfinished: bool = False

    @property
    def accepted(self) -> int:
        """Number of accepted samples."""
        return self.samples.count(RIGHT)

    @property
    def decided(self) -> int:
        """Number of samples that were accepted or rejected."""
        return self.samples.count(RIGHT) + self.samples.count(WRONG)


def pass_at(outcomes: Sequence[Outcome], k: int) -> list[float]:
    """Unbiased pass@k of every prompt with at least k decided samples; see `rlpost.algorithms.passk.pass_at_k`."""
    return [pass_at_k(o.decided, o.accepted, k) for o in outcomes if o.decided >= k]


def figures(outcomes: Sequence[Outcome], ks: Iterable[int], list_ks: Sequence[int] = ()) -> dict[str, float]:
    """Figures of an evaluation; means over prompts have a standard error (``_se``) and 95 % interval (``_low``,
    ``_high``).

    Args:
        outcomes: outcomes of all prompts.
        ks: values of k for pass@k.
        list_ks: values of k for recall@k and nDCG@k, where the answers are lists.

    Returns:
        Where answers have verdicts: ``pass@k``, ``greedy`` (accuracy) and ``distinct`` (different accepted answers per
        prompt). Where rewards are more than the verdict: ``reward`` (mean over prompts of the mean over samples) and
        ``greedy_reward``. Always ``prompts`` (their number) and ``undecided`` (share of all samples).

    Raises:
        InfrastructureError: if no prompt has k decided samples, or no greedy answer could be decided.
    """
    found = _pass_figures(outcomes, ks) if judged(outcomes) else {}
    found |= _reward_figures(outcomes)
    found |= list_figures([outcome.listed for outcome in outcomes if outcome.listed is not None], list_ks)
    if judged(outcomes):
        found["distinct"] = sum(outcome.distinct for outcome in outcomes) / len(outcomes)
    found["prompts"] = float(len(outcomes))
    total = sum(len(outcome.samples) for outcome in outcomes)
    found["undecided"] = sum(outcome.samples.count(OPEN) for outcome in outcomes) / total
    return found


def judged(outcomes: Sequence[Outcome]) -> bool:
    """Whether answers have verdicts, rather than rewards alone."""
    return not any(GRADED in outcome.samples for outcome in outcomes)


def mean_rewards(outcomes: Sequence[Outcome]) -> list[float]:
    """Mean reward of the decided samples of every prompt that has some.

    Where none was finished, they count as the least that any sample or greedy answer of these prompts got, if the floor
    is more: 0 would be the best among negative rewards.
    """
    least = _least(outcomes)
    known = [
        [min(value, least) if outcome.unfinished else value for value in outcome.rewards if value is not None]
        for outcome in outcomes
    ]
    return [sum(values) / len(values) for values in known if values]


def _least(outcomes: Sequence[Outcome]) -> float:
    """The least reward of prompts with a finished answer."""
    sampled = (value for one in outcomes if not one.unfinished for value in one.rewards)
    greedy = (one.greedy_reward for one in outcomes if not one.greedy_unfinished)
    return min((value for value in (*sampled, *greedy) if value is not None), default=math.inf)


def _pass_figures(outcomes: Sequence[Outcome], ks: Iterable[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for k in ks:
        values = pass_at(outcomes, k)
        if not values:
            raise InfrastructureError(f"evaluation: no prompt has {k} decided samples; see the verifier's reasons")
        found |= with_errors(f"pass@{k}", values)
    if any(outcome.greedy for outcome in outcomes):
        values = [float(outcome.greedy == RIGHT) for outcome in outcomes if outcome.greedy in (RIGHT, WRONG)]
        if not values:
            raise InfrastructureError("evaluation: no greedy answer could be decided; see the verifier's reasons")
        found |= with_errors("greedy", values)
    return found


def _reward_figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    pairs = [pair for one in outcomes for pair in zip(one.samples, one.rewards, strict=False)]
    if all(value is None or (mark == RIGHT and value == 1) or (mark == WRONG and value == 0) for mark, value in pairs):
        return {}  # pass@1 says the same
    values = mean_rewards(outcomes)
    found = with_errors("reward", values) if values else {}
    least = _least(outcomes)
    greedy = [
        min(value, least) if outcome.greedy_unfinished else value
        for outcome in outcomes
        if (value := outcome.greedy_reward) is not None
    ]
    return found | (with_errors("greedy_reward", greedy) if greedy else {})


def compare(before: Sequence[Outcome], after: Sequence[Outcome]) -> dict[str, float]:
    """Shares of the prompts in both that were solved before and are not now, and the other way round.

    They are ``negative_flips`` and ``positive_flips``; a prompt is solved if at least one sample was accepted. Where
    answers are graded only, there are none. For lists `rlpost.evaluation.lists.popularity_shift` is added.
    """
    known = {outcome.id: outcome for outcome in before}
    pairs = [(known[outcome.id], outcome) for outcome in after if outcome.id in known]
    if not pairs:
        return {}
    lists = [(b.listed, a.listed) for b, a in pairs if b.listed is not None and a.listed is not None]
    shift = popularity_shift([b for b, _ in lists], [a for _, a in lists])
    if not (judged(before) and judged(after)):
        return shift
    # equal numbers of samples on both sides: more samples solve more prompts
    most = min(min(len(b.samples), len(a.samples)) for b, a in pairs)
    solved = [tuple(RIGHT in one.samples[:most] for one in pair) for pair in pairs]
    lost, won = flips([b for b, _ in solved], [a for _, a in solved])
    return {"negative_flips": lost, "positive_flips": won, **shift}


@contextmanager
def recorder(path: Path) -> Iterator[Callable[[Outcome], None]]:
    """Open a file for outcomes, one JSON line each; lines already written stay if a later one fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:

        def record(outcome: Outcome) -> None:
            file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
            file.flush()

        yield record


def read(path: Path) -> list[Outcome]:
    """Read the outcomes that `recorder` wrote.

    Raises:
        DataError: for a file that cannot be read or holds something else.
    """
    try:
        # splitlines would also split at the line separators that ids may hold
        return [_outcome(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: no outcomes of an evaluation ({describe_error(error)}); write one with rlpost evaluate --output"
        ) from None


def _outcome(values: dict[str, Any]) -> Outcome:
    if not isinstance(values.get("id"), str) or not isinstance(values.get("samples"), str):
        raise ValueError("a line without id and samples")
    found = values.get("listed")
    rewards = tuple(values.get("rewards", ()))
    return Outcome(**{**values, "rewards": rewards, "listed": None if found is None else Listed.from_json(found)})
