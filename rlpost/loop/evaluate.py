"""Evaluation: sampling completions of held-out prompts and scoring them, in chunks, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from rlpost.algorithms.groups import paid
from rlpost.config.schema import RunConfig
from rlpost.evaluation.lists import listed
from rlpost.evaluation.outcomes import GRADED, OPEN, RIGHT, WRONG, Outcome, figures
from rlpost.protocols import GroupRequest, SamplingSettings
from rlpost.rollout.sampling import evaluation_settings, requests
from rlpost.trajectory import GroupReceipt, TokenizedPrompt

Generate = Callable[[Sequence[GroupRequest], SamplingSettings], list[GroupReceipt]]
Score = Callable[[Sequence[GroupReceipt]], list[GroupReceipt]]
Fetch = Callable[[Any], Any]

_CHUNK = 512
"""Completions per chunk of prompts: bounds memory, and the work that one deadline has to cover."""


@dataclass(slots=True)
class Evaluation:
    """The outcome of every prompt, and the number of accepted samples by the check that they rest on."""

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    assurances: Counter[str] = field(default_factory=Counter[str])

    def figures(self, ks: Sequence[int], list_ks: Sequence[int] = (), size: int | None = None) -> dict[str, float]:
        """Figures of `rlpost.evaluation.outcomes.figures`, and the assurances as shares (``accepted …``)."""
        total = sum(self.assurances.values())
        shares = {f"accepted {name}": count / total for name, count in sorted(self.assurances.items())}
        return figures(self.outcomes, ks, list_ks, size) | shares


def evaluate(
    prompts: Sequence[TokenizedPrompt],
    generate: Generate,
    score: Score,
    config: RunConfig,
    fetch: Fetch,
    samples: int | None = None,
    record: Callable[[Outcome], object] = lambda _: None,
) -> Evaluation:
    """Sample as ``evaluation.sampling`` says, score as in training, and keep a character and a reward per sample.

    Seeds are the same every time, so that two evaluations differ by their policies only. Undecided completions count
    neither for nor against; a prompt with fewer than k decided samples is left out of pass@k. While one chunk of
    prompts is being scored the next is being sampled; no more than two are ever in memory.

    Args:
        prompts: held-out prompts.
        generate: returns the group of each request.
        score: returns groups with verdicts and rewards.
        config: sampling parameters, ``evaluation.samples`` and ``evaluation.greedy``.
        fetch: resolves the handles in receipts.
        samples: completions per prompt; None for ``evaluation.samples``.
        record: called with the outcome of every prompt as soon as it is known.
    """
    sampled = evaluation_settings(config)
    rejects = config.truncation == "reject"
    greedy = replace(sampled, temperature=0.0, top_p=1.0, top_k=-1)

    def judged(count: int, drawn: SamplingSettings) -> Iterator[GroupReceipt]:
        return _score_while_sampling(_sample(prompts, count, drawn, generate, config.run.seed), score)

    answers = (
        [
            (_marks(group), listed(fetch(group.evidence)[0]), paid(group, 0), rejects and _unfinished(group))
            for group in judged(1, greedy)
        ]
        if config.evaluation.greedy
        else [("", None, None, False)] * len(prompts)
    )
    found = Evaluation()
    for group, greedily in zip(judged(samples or config.evaluation.samples, sampled), answers, strict=True):
        marks, members = _marks(group), range(len(group.trajectories))
        accepted = [member for member in members if marks[member] == RIGHT]
        texts = {group.trajectories[member].text for member in accepted}
        mark, found_list, greedy_reward, greedy_cut = greedily
        rewards = tuple(paid(group, member) for member in members)
        cut = rejects and _unfinished(group)
        outcome = Outcome(
            group.prompt.id, marks, len(texts), mark, found_list, rewards, greedy_reward, cut, greedy_cut,
            cluster(group.prompt.columns, config),
        )  # fmt: skip
        record(outcome)
        found.outcomes.append(outcome)
        found.assurances.update(v.assurance for m in accepted if (v := group.verdicts[m]) is not None and v.assurance)
    return found


def cluster(columns: Mapping[str, Any], config: RunConfig) -> str:
    """What a prompt has in common with others, by ``evaluation.cluster_key``; empty where its row does not say."""
    value = columns.get(config.evaluation.cluster_key)
    return "" if value is None else str(value)


def _sample(
    prompts: Sequence[TokenizedPrompt], samples: int, drawn: SamplingSettings, generate: Generate, seed: int
) -> Iterator[list[GroupReceipt]]:
    """Groups of the prompts, one chunk at a time."""
    per_chunk = max(_CHUNK // samples, 1)
    for start in range(0, len(prompts), per_chunk):
        chunk = prompts[start : start + per_chunk]
        asked = requests(chunk, run_seed=seed, step=start, group_size=samples, stream="evaluation")
        yield generate(asked, drawn)


def _score_while_sampling(chunks: Iterator[list[GroupReceipt]], score: Score) -> Iterator[GroupReceipt]:
    """Scored groups, in order; while one chunk is being scored the next is being sampled."""
    with ThreadPoolExecutor(1) as scorer:
        waiting: Future[list[GroupReceipt]] | None = None
        for chunk in chunks:
            following = scorer.submit(score, chunk)
            if waiting is not None:
                yield from waiting.result()
            waiting = following
        if waiting is not None:
            yield from waiting.result()


def _marks(group: GroupReceipt) -> str:
    return "".join(_mark(group, member) for member in range(len(group.trajectories)))


def _mark(group: GroupReceipt, member: int) -> str:
    verdict = group.verdicts[member]
    if verdict is None:
        return OPEN if paid(group, member) is None else GRADED
    return {"accepted": RIGHT, "rejected": WRONG, "undecided": OPEN}[verdict.outcome]


def _unfinished(group: GroupReceipt) -> bool:
    """Whether every member with a reward was cut."""
    ends = {one.status for one, reward in zip(group.trajectories, group.rewards, strict=True) if reward}
    return bool(ends) and ends <= {"length", "turns"}
