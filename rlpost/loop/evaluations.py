"""The evaluations of a run before, during and after training: measured, recorded, and compared with the start."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rlpost.config.schema import RunConfig
from rlpost.evaluation import outcomes, uplift
from rlpost.evaluation.outcomes import Outcome
from rlpost.loop import baselines
from rlpost.loop.evaluate import evaluate
from rlpost.loop.session import Session
from rlpost.observability.sinks import keep_lines_before
from rlpost.rollout.sampling import describe, evaluation_settings, requests, settings
from rlpost.trajectory import GroupReceipt

EvaluationFigures = list[tuple[str, Mapping[str, float]]]
"""Title and figures of each evaluation, in order."""

BEFORE, AFTER = "before", "after"
BASELINE = "baseline "
"""Begins the title of a simple method, whose answers to the same prompts stand beside the policy's."""


def on_the_way(step: int) -> str:
    """Title of an evaluation between the first step and the last."""
    return f"step {step}"


class Evaluations:
    """The evaluations of one run.

    Args:
        config: settings of the evaluations, sampling parameters and seed.
        folder: the run folder; figures go into ``evaluations.jsonl``, outcomes by prompt into ``evaluations/``.
        session: engines, scoring workers and learner.
        log: called with a line of figures after each evaluation.
    """

    def __init__(self, config: RunConfig, folder: Path, session: Session, log: Callable[[str], None]):
        self.config, self.session, self.log = config, session, log
        self.file, self.details = folder / "evaluations.jsonl", folder / "evaluations"
        self.rows: list[tuple[int, str, Mapping[str, float]]] = []
        self._simple: dict[str, list[Outcome]] | None = None

    @property
    def figures(self) -> EvaluationFigures:
        """Title and figures of each evaluation so far, in order."""
        return [(title, figures) for _, title, figures in self.rows]

    def truncate_after(self, step: int) -> None:
        """Drop later evaluations; one after step N belongs to the checkpoint of step N. -1 drops all."""
        self.rows = []
        for row in keep_lines_before(self.file, step + 1):
            row.pop("sampling", None)
            self.rows.append((row.pop("step"), row.pop("when"), row))

    def begin(self) -> None:
        """Sample the answers of the starting policy whose likelihood is followed through the run."""
        if self.config.evaluation.uplift_prompts:
            self.details.mkdir(parents=True, exist_ok=True)
            uplift.write(
                uplift.follow(self._groups(), self.session.fetch, self.session.learner_logprobs), self._followed
            )

    def measure(self, title: str, step: int) -> float | None:
        """Evaluate the current policy, unless that was done already.

        Returns:
            The score by which the best checkpoint is chosen: the first pass@k, or the mean reward where there are no
            verdicts, over the prompts that every evaluation uses. None if nothing was measured.
        """
        if not self.session.held_out or any((step, title) == (at, known) for at, known, _ in self.rows):
            return None
        section = self.config.evaluation
        within = title not in (BEFORE, AFTER)
        samples = section.during_samples if within and section.during_samples else section.samples
        prompts = self.session.held_out[: section.during_prompts if within else None]
        engines, scorers = self.session.rollouts, self.session.scoring
        with outcomes.recorder(self._outcomes(title)) as record:
            found = evaluate(prompts, engines.generate, scorers.score, self.config, self.session.fetch, samples, record)
        figures = found.figures(section.ks(samples), section.list_k, baselines.list_size(self.config))
        figures |= baselines.ahead(found.outcomes, self._baselines(found.outcomes), section.list_k)
        if title != BEFORE and self._outcomes(BEFORE).exists():
            figures |= outcomes.compare(outcomes.read(self._outcomes(BEFORE)), found.outcomes)
        figures |= self._uplift(title, step)
        self._note(step, title, figures)
        common = found.outcomes[: section.during_prompts]
        verdicts = outcomes.judged(found.outcomes)
        values = outcomes.pass_at(common, section.ks(samples)[0]) if verdicts else outcomes.mean_rewards(common)
        return sum(values) / len(values) if values else None

    def _baselines(self, known: Sequence[Outcome]) -> dict[str, list[Outcome]]:
        """Outcomes of simple methods on all held-out prompts, measured once where the answers are lists."""
        if self._simple is None:
            self._simple = baselines.measure(self.session, known)
            for name, found in self._simple.items():
                title = f"{BASELINE}{name}"
                with outcomes.recorder(self._outcomes(title)) as record:
                    for outcome in found:
                        record(outcome)
                if title not in (at for _, at, _ in self.rows):
                    self._note(0, title, baselines.figures(found, self.config))
        return self._simple

    def _note(self, step: int, title: str, figures: Mapping[str, float]) -> None:
        self.rows.append((step, title, figures))
        sampling = None if title.startswith(BASELINE) else describe(evaluation_settings(self.config))
        said = {} if sampling is None else {"sampling": sampling}
        with self.file.open("a") as file:
            file.write(json.dumps({"step": step, "when": title, **said, **figures}) + "\n")
        self.log(f"{title}{'' if sampling is None else f' ({sampling})'}: " + "  ".join(_shown(figures)))

    def _uplift(self, title: str, step: int) -> dict[str, float]:
        followed = uplift.read(self._followed) if title != BEFORE and self._followed.exists() else []
        if not followed:
            return {}
        found = uplift.measure(followed, self.session.learner_logprobs)
        kept = keep_lines_before(self.details / "uplift.jsonl", step) if step else []
        rows = [*kept, {"step": step, "when": title, **found}]
        (self.details / "uplift.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"uplift": float(str(found["share"]))}

    def _groups(self) -> list[GroupReceipt]:
        """Scored samples of the starting policy, as many per prompt as in training and sampled as there: their
        likelihoods are those of the full support.
        """
        asked = requests(
            self.session.held_out[: self.config.evaluation.uplift_prompts],
            run_seed=self.config.run.seed,
            step=0,
            group_size=self.config.rollout.group_size,
            stream="uplift",
        )
        drawn = settings(self.config.rollout, logprobs=self.config.rollout.logprobs == "always")
        return self.session.scoring.score(self.session.rollouts.generate(asked, drawn))

    def _outcomes(self, title: str) -> Path:
        return self.details / f"{title.replace(' ', '_')}.jsonl"

    @property
    def _followed(self) -> Path:
        return self.details / "followed.jsonl"


def _shown(figures: Mapping[str, float]) -> list[str]:
    """Names and values; of rewards, which have no natural scale, also the interval."""
    found: list[str] = []
    for name, value in figures.items():
        if name.endswith(("_se", "_low", "_high")):
            continue
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        spread = "" if low is None or high is None or "reward" not in name else f" [{low:.3f}, {high:.3f}]"
        found.append(f"{name} {value:.3f}{spread}")
    return found
