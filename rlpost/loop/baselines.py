"""Simple methods on a run's held-out prompts: their answers, judged by the run's own verifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlpost.config.schema import RunConfig
from rlpost.data.load import prompts
from rlpost.errors import DataError
from rlpost.evaluation.lists import leads, listed
from rlpost.evaluation.outcomes import RIGHT, WRONG, Outcome, clusters_of
from rlpost.evaluation.outcomes import figures as figures_of
from rlpost.loop.evaluate import cluster
from rlpost.loop.session import Session
from rlpost.plugins.build import build_stage
from rlpost.types import Prompt, Verdict

Judge = Callable[[Sequence[Prompt], Sequence[Prompt], int, str | None], Mapping[str, Sequence[Verdict]]]
"""`rlpost.protocols.ScoringPool.baselines`, of a pool or of a `rlpost.scoring.score.Scorer`."""
_MARKS = {"accepted": RIGHT, "rejected": WRONG}


def list_size(config: RunConfig) -> int | None:
    """Number of items that the prompts ask for, by the reward ``ranking``; None without it."""
    stages: list[Any] = [build_stage(spec) for spec in config.scoring.rewards if spec.name == "ranking"]
    return stages[0].settings.size if stages else None


def measure(session: Session, known: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of the methods that the verifier knows, by name; see `rlpost.protocols.BaselineVerifier`.

    There are none where none of the policy's outcomes (``known``) is a list. They count in the training prompts. Where
    a session of an evaluation has none and they cannot be read, that is logged, and there are no baselines.
    """
    config = session.config
    if not config.evaluation.baselines or all(one.listed is None for one in known):
        return {}
    train = [one.prompt for one in session.train] or _training_prompts(session)
    if not train:
        return {}
    return judged(config, train, [one.prompt for one in session.held_out], session.scoring.baselines)


def judged(
    config: RunConfig, train: Sequence[Prompt], held_out: Sequence[Prompt], judge: Judge
) -> dict[str, list[Outcome]]:
    """Outcomes of the methods on held-out prompts, by name; they count in ``train``."""
    places = list_size(config) or max(config.evaluation.list_k)
    teacher = config.sft.completion_key if config.sft is not None else None
    return {
        name: [
            Outcome(one.id, "", 0, _MARKS.get(found.outcome, ""), listed(found), cluster=cluster(one.columns, config))
            for one, found in zip(held_out, verdicts, strict=True)
        ]
        for name, verdicts in judge(train, held_out, places, teacher).items()
    }


def figures(outcomes: Sequence[Outcome], config: RunConfig) -> dict[str, float]:
    """Figures of a method's lists, as of a policy's (`rlpost.evaluation.outcomes.figures`)."""
    return figures_of(outcomes, (), config.evaluation.list_k, list_size(config))


def ahead(
    outcomes: Sequence[Outcome], baselines: Mapping[str, Sequence[Outcome]], ks: Sequence[int]
) -> dict[str, float]:
    """`rlpost.evaluation.lists.leads` of a policy, over the prompts that all have a list for."""
    known = {name: {one.id: one.listed for one in found if one.listed is not None} for name, found in baselines.items()}
    shared = [one for one in outcomes if one.listed is not None and all(one.id in found for found in known.values())]
    others = {name: [found[one.id] for one in shared] for name, found in known.items()}
    return leads([one.listed for one in shared if one.listed is not None], others, ks, clusters_of(shared))


def _training_prompts(session: Session) -> list[Prompt]:
    try:
        return prompts(session.config.data, "train")
    except DataError as error:
        session.supervision.log(f"evaluation: no baselines, which count in data.train ({error})")
        return []
