"""Accuracy and pass@k of a policy on held-out prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rlpost.algorithms.groups import correct
from rlpost.algorithms.passk import mean_and_error, pass_at_k
from rlpost.config.schema import RunConfig
from rlpost.errors import InfrastructureError
from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.sampling import requests, settings
from rlpost.types import Completion, Group, Prompt

Generate = Callable[[Sequence[GenerateRequest], SamplingSettings], list[list[Completion]]]
Score = Callable[[Sequence[Group]], list[Group]]

_CHUNK = 512
"""Completions per request: bounds memory and how much one deadline has to cover."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt with its token ids."""

    prompt: Prompt
    ids: tuple[int, ...]


def evaluate(prompts: Sequence[Encoded], generate: Generate, score: Score, config: RunConfig) -> dict[str, float]:
    """pass@k by sampling as in training, and the accuracy of the greedy answer.

    The same seeds every time, so that two evaluations differ by their policies only. Undecided completions count
    neither for nor against; a prompt with fewer than k decided samples takes no part in pass@k.

    Args:
        prompts: held-out prompts.
        generate: of the engines.
        score: of the scoring workers.
        config: of the run.

    Returns:
        ``pass@k``, ``greedy``, each with its standard error over prompts (``…_se``), ``prompts``, ``undecided``, and
        what the accepted samples rest on, as shares (``accepted kernel_replayed``).

    Raises:
        InfrastructureError: if nothing could be decided.
    """
    section, sampled = config.evaluation, settings(config.rollout, logprobs=False)
    judged = _judge(prompts, section.samples, sampled, generate, score, config.run.seed)
    counts = judged.counts
    figures: dict[str, float] = {}
    for k in section.k:
        values = [pass_at_k(n, c, k) for n, c in counts if n >= k]
        if not values:
            raise InfrastructureError(f"evaluation: no prompt has {k} decided samples; see the verifier's reasons")
        figures[f"pass@{k}"], figures[f"pass@{k}_se"] = mean_and_error(values)
    if section.greedy:
        greedy = replace(sampled, temperature=0.0, top_p=1.0, top_k=-1)
        single = _judge(prompts, 1, greedy, generate, score, config.run.seed).counts
        values = [float(c) for n, c in single if n]
        if not values:
            raise InfrastructureError("evaluation: no greedy answer could be decided; see the verifier's reasons")
        figures["greedy"], figures["greedy_se"] = mean_and_error(values)
    figures["prompts"] = float(len(prompts))
    figures["undecided"] = 1.0 - sum(n for n, _ in counts) / (len(prompts) * section.samples)
    total = sum(judged.assurances.values())
    return figures | {f"accepted {name}": count / total for name, count in sorted(judged.assurances.items())}


@dataclass(slots=True)
class _Judged:
    """For each prompt the numbers of decided and of accepted completions; what the accepted ones rest on."""

    counts: list[tuple[int, int]]
    assurances: Counter[str]


def _judge(
    prompts: Sequence[Encoded], samples: int, drawn: SamplingSettings, generate: Generate, score: Score, seed: int
) -> _Judged:
    per_chunk = max(_CHUNK // samples, 1)
    judged = _Judged([], Counter())
    for start in range(0, len(prompts), per_chunk):
        chunk = prompts[start : start + per_chunk]
        asked = requests(
            [(e.prompt.id, e.ids) for e in chunk], run_seed=seed, step=start, group_size=samples, stream="evaluation"
        )
        completions = generate(asked, drawn)
        groups = [Group(e.prompt, tuple(c)) for e, c in zip(chunk, completions, strict=True)]
        for group in score(groups):
            judged.counts.append(_count(group))
            judged.assurances.update(
                v.assurance for v in group.verdicts if v is not None and v.outcome == "accepted" and v.assurance
            )
    return judged


def _count(group: Group) -> tuple[int, int]:
    decided = [found for i in range(len(group.completions)) if (found := correct(group, i)) is not None]
    return len(decided), sum(decided)
