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
        cluster: what the prompt has in common with others, such as the conversation that it comes from; empty: nothing.

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
    cluster: str = ""

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


def figures(
    outcomes: Sequence[Outcome], ks: Iterable[int], list_ks: Sequence[int] = (), size: int | None = None
) -> dict[str, float]:
    """Figures of an evaluation; means over prompts have a standard error (``_se``) and 95 % interval (``_low``,
    ``_high``), over clusters of prompts where outcomes name them.

    Args:
        outcomes: outcomes of all prompts.
        ks: values of k for pass@k.
        list_ks: values of k for recall@k and nDCG@k, where the answers are lists.
        size: number of items that the prompts ask for, where the answers are lists; None: unknown.

    Returns:
        Where answers have verdicts: ``pass@k``, ``greedy`` (accuracy) and ``distinct`` (different accepted answers per
        prompt). Where rewards are more than the verdict: ``reward`` (mean over prompts of the mean over samples) and
        ``greedy_reward``. Always ``prompts`` (their number) and ``undecided`` (share of all samples).

    Raises:
        InfrastructureError: if no prompt has k decided samples, or no greedy answer could be decided.
    """
    found = _pass_figures(outcomes, ks) if judged(outcomes) else {}
    found |= _reward_figures(outcomes)
    lists = [outcome for outcome in outcomes if outcome.listed is not None]
    found |= list_figures([one.listed for one in lists if one.listed is not None], list_ks, clusters_of(lists), size)
    if judged(outcomes):
        found["distinct"] = sum(outcome.distinct for outcome in outcomes) / len(outcomes)
    found["prompts"] = float(len(outcomes))
    total = sum(len(outcome.samples) for outcome in outcomes)
    if total:
        found["undecided"] = sum(outcome.samples.count(OPEN) for outcome in outcomes) / total
    return found


def clusters_of(outcomes: Sequence[Outcome]) -> list[str] | None:
    """The cluster of each outcome; None if no two share one, so that each prompt stands for itself."""
    named = [outcome.cluster for outcome in outcomes if outcome.cluster]
    if len(set(named)) == len(named):
        return None
    return [f"cluster {outcome.cluster}" if outcome.cluster else f"prompt {outcome.id}" for outcome in outcomes]


def judged(outcomes: Sequence[Outcome]) -> bool:
    """Whether answers have verdicts, rather than rewards alone."""
    return any(outcome.samples for outcome in outcomes) and not any(GRADED in outcome.samples for outcome in outcomes)


def mean_rewards(outcomes: Sequence[Outcome]) -> list[float]:
    """Mean reward of the decided samples of every prompt that has some.

    Where none was finished, they count as the least that any sample or greedy answer of these prompts got, if the floor
    is more: 0 would be the best among negative rewards.
    """
    least = _least(outcomes)
    return [value for outcome in outcomes if (value := _mean_reward(outcome, least)) is not None]


def _mean_reward(outcome: Outcome, least: float) -> float | None:
    known = [min(value, least) if outcome.unfinished else value for value in outcome.rewards if value is not None]
    return sum(known) / len(known) if known else None


def _least(outcomes: Sequence[Outcome]) -> float:
    """The least reward of prompts with a finished answer."""
    sampled = (value for one in outcomes if not one.unfinished for value in one.rewards)
    greedy = (one.greedy_reward for one in outcomes if not one.greedy_unfinished)
    return min((value for value in (*sampled, *greedy) if value is not None), default=math.inf)


def _pass_figures(outcomes: Sequence[Outcome], ks: Iterable[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for k in ks:
        measured = _mean(f"pass@{k}", outcomes, lambda one, k=k: next(iter(pass_at([one], k)), None))
        if not measured:
            raise InfrastructureError(f"evaluation: no prompt has {k} decided samples; see the verifier's reasons")
        found |= measured
    if any(outcome.greedy for outcome in outcomes):
        marks = {RIGHT: 1.0, WRONG: 0.0}
        measured = _mean("greedy", outcomes, lambda one: marks.get(one.greedy))
        if not measured:
            raise InfrastructureError("evaluation: no greedy answer could be decided; see the verifier's reasons")
        found |= measured
    return found


def _mean(name: str, outcomes: Sequence[Outcome], value: Callable[[Outcome], float | None]) -> dict[str, float]:
    """Mean of a measure over the outcomes that have it, with its errors; empty if none has."""
    pairs = [(one, found) for one in outcomes if (found := value(one)) is not None]
    return with_errors(name, [found for _, found in pairs], clusters_of([one for one, _ in pairs])) if pairs else {}


def _reward_figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    pairs = [pair for one in outcomes for pair in zip(one.samples, one.rewards, strict=False)]
    if all(value is None or (mark == RIGHT and value == 1) or (mark == WRONG and value == 0) for mark, value in pairs):
        return {}  # pass@1 says the same
    least = _least(outcomes)

    def greedy(one: Outcome) -> float | None:
        value = one.greedy_reward
        return min(value, least) if value is not None and one.greedy_unfinished else value

    return _mean("reward", outcomes, lambda one: _mean_reward(one, least)) | _mean("greedy_reward", outcomes, greedy)


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
