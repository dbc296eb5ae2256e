"""Sampling held-out prompts and having the samples judged, prompt by prompt, whatever their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from rlpost.algorithms.groups import correct
from rlpost.config.schema import RunConfig
from rlpost.evaluation.lists import listed
from rlpost.evaluation.outcomes import OPEN, RIGHT, WRONG, Outcome, figures
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.sampling import requests, settings
from rlpost.types import Completion, Group, TokenizedPrompt

Generate = Callable[[Sequence[GenerateRequest], SamplingSettings], list[list[Completion]]]
Score = Callable[[Sequence[Group]], list[Group]]

_CHUNK = 512
"""Completions per request: bounds memory and how much one deadline has to cover."""


@dataclass(slots=True)
class Evaluation:
    """What became of every prompt, and what the accepted samples rest on."""

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    assurances: Counter[str] = field(default_factory=Counter[str])

    def figures(self, ks: Sequence[int], list_ks: Sequence[int] = ()) -> dict[str, float]:
        """See `rlpost.evaluation.outcomes.figures`; beside them the assurances as shares (``accepted …``)."""
        total = sum(self.assurances.values())
        shares = {f"accepted {name}": count / total for name, count in sorted(self.assurances.items())}
        return figures(self.outcomes, ks, list_ks) | shares


def evaluate(
    prompts: Sequence[TokenizedPrompt],
    generate: Generate,
    score: Score,
    config: RunConfig,
    samples: int | None = None,
    record: Callable[[Outcome], object] = lambda _: None,
) -> Evaluation:
    """Sample as in training, judge, and keep a character per sample.

    The same seeds every time, so that two evaluations differ by their policies only. Undecided completions count
    neither for nor against; a prompt with fewer than k decided samples takes no part in pass@k. While one chunk of
    prompts is being judged the next is being sampled; no more than two are ever in memory.

    Args:
        prompts: held-out prompts.
        generate: samples completions of requests.
        score: scores groups.
        config: how to sample, and how many.
        samples: completions per prompt; None: ``evaluation.samples``.
        record: is given every prompt's outcome as soon as it is there.
    """
    # a reward stage may read the engine's log-probabilities
    sampled = settings(config.rollout, logprobs=config.rollout.logprobs == "always")
    greedy = replace(sampled, temperature=0.0, top_p=1.0, top_k=-1)

    def judged(count: int, drawn: SamplingSettings) -> Iterator[Group]:
        return _score_while_sampling(_sample(prompts, count, drawn, generate, config.run.seed), score)

    answers = (
        [(_marks(group), listed(group.verdicts[0])) for group in judged(1, greedy)]
        if config.evaluation.greedy
        else [("", None)] * len(prompts)
    )
    found = Evaluation()
    for group, answer in zip(judged(samples or config.evaluation.samples, sampled), answers, strict=True):
        accepted = [member for member in range(len(group.completions)) if correct(group, member)]
        texts = {group.completions[member].text for member in accepted}
        outcome = Outcome(group.prompt.id, _marks(group), len(texts), *answer)
        record(outcome)
        found.outcomes.append(outcome)
        found.assurances.update(v.assurance for m in accepted if (v := group.verdicts[m]) is not None and v.assurance)
    return found


def _sample(
    prompts: Sequence[TokenizedPrompt], samples: int, drawn: SamplingSettings, generate: Generate, seed: int
) -> Iterator[list[Group]]:
    """The prompts with their completions, a chunk at a time."""
    per_chunk = max(_CHUNK // samples, 1)
    for start in range(0, len(prompts), per_chunk):
        chunk = prompts[start : start + per_chunk]
        names = [(one.prompt.id, one.token_ids) for one in chunk]
        asked = requests(names, run_seed=seed, step=start, group_size=samples, stream="evaluation")
        yield [Group(e.prompt, tuple(c)) for e, c in zip(chunk, generate(asked, drawn), strict=True)]


def _score_while_sampling(chunks: Iterator[list[Group]], score: Score) -> Iterator[Group]:
    """Judged groups, in order; the next chunk is being sampled while one is being judged."""
    with ThreadPoolExecutor(1) as scorer:
        waiting: Future[list[Group]] | None = None
        for chunk in chunks:
            following = scorer.submit(score, chunk)
            if waiting is not None:
                yield from waiting.result()
            waiting = following
        if waiting is not None:
            yield from waiting.result()


def _marks(group: Group) -> str:
    marks = {None: OPEN, True: RIGHT, False: WRONG}
    return "".join(marks[correct(group, member)] for member in range(len(group.completions)))
