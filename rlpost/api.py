"""The commands of the command line as Python functions, for scripts and notebooks.

A configuration is a `rlpost.config.schema.RunConfig`, a mapping of its sections, or the path of a YAML file. In a
mapping, a reward, verifier, environment, loss or advantage can be the function or class itself:
``{"scoring": {"rewards": [f]}}``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlpost.config.load import from_dict, load
from rlpost.config.schema import EvaluationSampling, RunConfig, ScoringSection
from rlpost.errors import UserError
from rlpost.plugins.objects import named_objects
from rlpost.types import Verdict, VerifyItem

if TYPE_CHECKING:
    from rlpost.actors.placement import Plan
    from rlpost.algorithms.exposure import Attention
    from rlpost.commands.harvest import Contamination, Harvest
    from rlpost.commands.prove import Proofs
    from rlpost.data.selection import Pick
    from rlpost.evaluation.audit import Audit
    from rlpost.loop.robustness import Robustness
    from rlpost.loop.run import RunResult
    from rlpost.loop.sync import OnStep
    from rlpost.observability.progress import Display
    from rlpost.sparsity.findings import Findings

Config = RunConfig | Mapping[str, Any] | str | Path
Split = Literal["train", "eval"]


def train(
    config: Config,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    on_step: OnStep | None = None,
    display: Display | None = None,
) -> RunResult:
    """Train as a configuration says.

    Args:
        config: configuration, mapping of its sections, or path of a YAML file.
        resume: continue from the run folder's last checkpoint; from the beginning if there is none. What differs from
            the configuration in the run folder is shown.
        allow_changes: resume also if the run becomes another one by it (another learning rate, group size, seed, …);
            ``config_changes.jsonl`` in the run folder then says what changed at which step.
        on_step: called with every finished `rlpost.loop.sync.Step` (receipts of its groups, advantages and metrics;
            texts are in the step's transcript by then); if it returns False, the run ends after that step as after one
            Ctrl-C, with a checkpoint and the model.
        display: shows progress; None shows nothing.

    Returns:
        Folder, steps, the last step's metrics and all evaluations.

    Raises:
        UserError: if the input is wrong.
        RlpostError: if the run or one of its checks fails, with one line: what, the value, what to do.
    """
    from rlpost.loop.run import train as run

    return run(configuration(config), resume=resume, allow_changes=allow_changes, display=display, on_step=on_step)


def evaluate(
    config: Config, model: str | Path, *, split: Split = "eval", output: str | Path | None = None
) -> dict[str, float]:
    """Evaluate a model on the held-out prompts of a configuration.

    Args:
        config: configuration, mapping of its sections, or path of a YAML file; ``data.eval`` must be given, except with
            ``split="train"``.
        model: Hugging Face folder.
        split: ``eval``, or ``train`` to measure the pass rate of every training prompt, for ``data.curriculum``.
        output: file for the outcomes of every prompt's samples, a JSON line each, written as they come.

    Returns:
        Figures of `rlpost.evaluation.outcomes.figures`, and the shares of accepted samples by the check that they rest
        on (``accepted …``). Where the verifier knows simple methods, the distance to the best of them (``… lead``) and
        their own figures (``baseline/<name>/…``).

    Raises:
        UserError: if the input is wrong.
        RlpostError: if it fails.
    """
    resolved = for_split(configuration(config), split)
    if resolved.data.eval is None:
        raise UserError("data.eval: missing; an evaluation needs held-out data")
    from rlpost.data.models import resolve_path
    from rlpost.evaluation import outcomes
    from rlpost.loop import baselines
    from rlpost.loop.evaluate import evaluate as measure
    from rlpost.loop.start import session
    from rlpost.observability.metrics import prefixed

    with contextlib.ExitStack() as open_:
        record = open_.enter_context(outcomes.recorder(Path(output))) if output is not None else lambda _: None
        running = open_.enter_context(session(resolved, resolve_path(str(model)), training=False))
        engines, scorers = running.rollouts, running.scoring
        found = measure(running.held_out, engines.generate, scorers.score, running.config, running.fetch, record=record)
        section = resolved.evaluation
        figures = found.figures(section.ks(section.samples), section.list_k, baselines.list_size(resolved))
        simple = baselines.measure(running, found.outcomes)
        figures |= baselines.ahead(found.outcomes, simple, section.list_k)
        for name, answers in simple.items():
            figures |= prefixed(f"baseline/{name}", baselines.figures(answers, resolved))
        return figures


def robustness(config: Config, model: str | Path, *, output: str | Path | None = None, **settings: Any) -> Robustness:
    """Attack a recommender through the descriptions in its prompts, and measure defences.

    Args:
        config: configuration, mapping of its sections, or path of a YAML file, with ``data.eval``.
        model: Hugging Face folder.
        output: file for every trial, a JSON line each.
        settings: fields of `rlpost.evaluation.robustness.RobustnessSettings`, e.g. ``targets=5``.

    Returns:
        Every trial; `rlpost.evaluation.robustness.attack_figures` makes a table of them.

    Raises:
        UserError: if the input is wrong, or no prompt describes an item.
        RlpostError: if it fails.
    """
    from rlpost.commands.robustness import robustness as measure
    from rlpost.evaluation.robustness import RobustnessSettings

    return measure(configuration(config), model, RobustnessSettings(**settings), output=output)


def audit(
    first: str | Path,
    second: str | Path,
    *,
    groups: str | Path | None = None,
    item_column: str = "item",
    group_column: str = "group",
    users: str | Path | None = None,
    names: str | Path | None = None,
    attention: Attention = "log",
    patience: float = 0.8,
    cut: int | None = None,
    draws: int = 999,
    seed: int = 0,
) -> Audit:
    """How far what two recommenders show to the same users differs, beside chance.

    Args:
        first: the baseline's lists: outcomes of an evaluation, a run folder, a TREC run, or Rankify's JSON.
        second: the other's, in any of these forms.
        groups: table of items and their groups; None: the groups in the evaluations (verifier argument ``group``).
        item_column: its column with the item.
        group_column: its column with the group.
        users: table with ``query`` and ``user``; None: the clusters of the evaluations.
        names: table with ``docno`` and ``name``, such as ``rlpost trec export`` writes.
        attention: what a rank is worth: ``log``, ``rbp`` or ``top``; see `rlpost.algorithms.exposure.attention`.
        patience: of ``rbp``.
        cut: only the first ``cut`` places count; None: all.
        draws: number of draws of the noise.
        seed: seed of the draws.

    Raises:
        UserError: if a file or setting cannot be used.
    """
    from rlpost.commands.audit import audit_files
    from rlpost.evaluation.audit import AuditSettings

    settings = AuditSettings(attention, patience, cut, draws=draws, seed=seed)
    return audit_files(
        first, second, groups=groups, item_column=item_column, group_column=group_column, users=users, names=names,
        settings=settings,
    )  # fmt: skip


def for_split(config: RunConfig, split: Split) -> RunConfig:
    """A configuration whose held-out prompts are those of a split.

    Training prompts are sampled as in training, whatever ``evaluation.sampling`` says: their pass rates are for
    ``data.curriculum``.
    """
    if split == "eval":
        return config
    data = config.data.model_copy(update={"eval": config.data.train})
    # baselines would be tested on the rows that they count in
    evaluation = config.evaluation.model_copy(update={"sampling": EvaluationSampling(), "baselines": False})
    return config.model_copy(update={"data": data, "evaluation": evaluation})


def verify(answers: Iterable[Mapping[str, Any]], verifier: str = "lean.embedded", **settings: Any) -> list[Verdict]:
    """Verify answers in this process.

    Args:
        answers: mappings with the model's ``text`` and the columns that the verifier reads (for Lean ``statement``).
        verifier: name of a verifier, with the values of ``scoring.verifier``.
        settings: keyword arguments of the verifier, the keys of ``scoring.verifier_args``.

    Returns:
        A verdict for each answer, in order.

    Raises:
        UserError: for an answer without ``text``, an unknown verifier, or settings it does not take.

    >>> judge = lambda text, columns: text == columns["gold"]
    >>> [verdict.outcome for verdict in verify([{"gold": "4", "text": "4"}], "function", function=judge)]
    ['accepted']
    """
    from rlpost.plugins.build import build_verifier

    rows = list(answers)
    for number, row in enumerate(rows):
        if not isinstance(row.get("text"), str):
            raise UserError(f"answers[{number}]: 'text' is {row.get('text')!r}; give the model's answer as a string")
    built = build_verifier(ScoringSection(verifier=verifier, verifier_args=settings))
    assert built is not None
    try:
        return built.verify_batch([VerifyItem(row, row["text"]) for row in rows])
    finally:
        built.close()


def prove(
    file: str | Path,
    model: str | Path,
    *,
    config: Config | None = None,
    output: str | Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Proofs:
    """Look for proofs of given theorems with a trained model; every proof found is checked by the full verifier.

    Args:
        file: JSON lines: rows as our Lean sources give them, or declarations as miniF2F and PutnamBench have them.
        model: Hugging Face folder.
        config: configuration that the model was trained with (template, verifier, sampling), with the section
            ``prove``; None: that of the run folder in which the model lies.
        output: a JSON line per theorem, written as it is settled; a second call with the same output does the rest.
            None: ``STEM.proofs.jsonl`` in the working directory.
        log: called with lines about progress.

    Returns:
        Figures, and the row of every theorem.

    Raises:
        UserError: if the input is wrong, or the output holds results of something else.
        RlpostError: if engines or verifier fail.
    """
    from rlpost.commands.prove import prove_file

    given = None if config is None else configuration(config)
    return prove_file(file, model, config=given, output=output, log=log)


def harvest(
    runs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    per_prompt: int | None = 4,
    pick: Pick = "shortest",
    seed: int = 0,
    assurance: Sequence[str] = (),
    min_reward: float | None = None,
    held_out: Sequence[str | Path] = (),
    contamination: Contamination = "refuse",
    completion_key: str | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Harvest:
    """Write the accepted answers in the transcripts of runs as rows for ``sft.train`` of a further run.

    Truncated and undecided answers are never taken. Prompts are looked up by id in ``data.train`` of the run's own
    configuration, and must read as the transcript says they did.

    Args:
        runs: run folders, finished or not, that make prompts of rows in the same way.
        output: JSON-lines file; written whole or not at all.
        per_prompt: most answers to one prompt, after equal ones are taken out; None: all.
        pick: which of them: the ``shortest`` in tokens, ``diverse`` ones (`rlpost.data.selection.choose`), or the
            ``first`` found.
        seed: seed of ``diverse``.
        assurance: names of checks, one of which the verdict must rest on, e.g. ``("kernel_replayed",)``; empty: any.
        min_reward: least reward of an answer; needed where nothing is verified.
        held_out: further held-out prompts, beside ``data.eval`` of the runs: files of rows, configurations, or run
            folders.
        contamination: treatment of answers to held-out prompts: ``refuse``, ``drop`` or ``allow``.
        completion_key: column of the answers; None: ``sft.completion_key`` of the runs.
        overrides: ``section.key=value`` items that win over the runs' configurations, e.g. for data that has moved.
        force: replace the file if it exists.

    Returns:
        Counts of every row that was read, lengths, and the settings of ``sft`` that read the file.

    Raises:
        UserError: if the input is wrong, or nothing is left to write.
    """
    from rlpost.commands.harvest import Choice
    from rlpost.commands.harvest import harvest as write
    from rlpost.commands.harvest_rows import Demands

    return write(
        [runs] if isinstance(runs, (str, Path)) else runs,
        output,
        demands=Demands((assurance,) if isinstance(assurance, str) else tuple(assurance), min_reward),
        choice=Choice(per_prompt, pick, seed, contamination),
        held_out=[held_out] if isinstance(held_out, (str, Path)) else held_out,
        completion_key=completion_key,
        overrides=overrides,
        force=force,
    )


def plan(config: Config) -> Plan:
    """A dry run: look for every fault, and place every actor on the machine or cluster that is named, without starting
    any.

    Returns:
        Each actor's node, threads, GPUs and memory; ``missing`` and ``faults`` are empty if the run can start.

    Raises:
        ConfigError: if a key of the configuration is wrong.
    """
    from rlpost.commands.plan import plan as work_out

    return work_out(configuration(config))


def compare(before: str | Path, after: str | Path, **options: Any) -> Findings:
    """What changed between two checkpoints, next to what noise would have changed.

    Args:
        before: Hugging Face folder or safetensors file.
        after: Hugging Face folder or safetensors file, or a folder with a LoRA adapter of ``before``.
        options: keyword arguments for `rlpost.sparsity.analysis.sparsity`, e.g. ``training=Training(lr=1e-6,
            steps=600)``.

    Raises:
        DataError: if a checkpoint cannot be read, or they do not belong together.
    """
    from rlpost.sparsity.analysis import sparsity

    return sparsity(before, after, **options)


def configuration(config: Config) -> RunConfig:
    """The validated configuration, from any of the forms it may be given in.

    Raises:
        ConfigError: one line with the place, the value and the remedy.
    """
    if isinstance(config, RunConfig):
        return config
    return from_dict(named_objects(config)) if isinstance(config, Mapping) else load(config).config
