"""``rlpost harvest``: supervised rows of the accepted answers in the transcripts of runs, for ``sft.train``.

What a row is: all columns of the prompt's row, the answer in the column of ``sft.completion_key``, and where it comes
from in the column ``harvest``.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rlpost.commands.harvest_rows import Answer, Demands, FinishedRun
from rlpost.commands.harvest_write import check_target, check_written, completion_column, written_rows
from rlpost.config.load import load as load_config
from rlpost.data import load
from rlpost.data.decontaminate import question
from rlpost.data.selection import Pick, choose
from rlpost.data.text import shown
from rlpost.errors import DataError, RlpostError, UserError
from rlpost.observability.runfolder import replace_text
from rlpost.observability.transcripts import asked
from rlpost.plugins import registry
from rlpost.plugins.normal_forms import declared_form
from rlpost.types import Prompt

Contamination = Literal["refuse", "drop", "allow"]
Note = Callable[[str], object]

REASONS = {
    "damaged": "no whole row",
    "old": "of an earlier version, without what is needed",
    "undecided": "undecided",
    "truncated": "truncated or aborted",
    "repairs": "answers to prompts of data.repair, which hold a rejected answer",
    "rejected": "rejected",
    "below": "below the demanded reward",
    "assurance": "accepted on another assurance",
    "no_target": "accepted, no target (rewritten history, cut or tool observations, broken characters)",
    "empty": "accepted and empty",
    "prefix": "accepted, without sft.completion_prefix",
    "contaminated": "accepted, the prompt is held out",
    "duplicates": "accepted, the same answer to the same prompt again",
    "surplus": "accepted, more than --per-prompt",
}
"""What can become of a row other than to be written; with the written ones, they add up to the rows that were read."""


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a harvest found.

    Attributes:
        output: the file.
        rows: number of rows in it.
        read: number of transcript rows that were read.
        accepted: number of those whose answer was accepted as demanded, the ones that were then left out included.
        left_out: number of rows that were not written, by reason (a key of `REASONS`).
        prompts: number of different prompts that have a row.
        tokens: sampled tokens of the written answers: ``min``, ``median``, ``mean``, ``max``.
        longest_row: tokens of the longest row, prompt included, for ``sft.max_length``.
        assurances: number of written rows by the check that they rest on.
        runs: rows read and written, by run folder.
        sft: the settings of section ``sft`` that read the file.
        notes: a line about each file that was not read whole, and whatever else is to be known.
    """

    output: str
    rows: int
    read: int
    accepted: int
    left_out: dict[str, int]
    prompts: int
    tokens: dict[str, float]
    longest_row: int
    assurances: dict[str, int]
    runs: dict[str, dict[str, int]]
    sft: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which accepted answers are written: how many to a prompt (None: all), which, and the rule on held-out prompts."""

    per_prompt: int | None = 4
    pick: Pick = "shortest"
    seed: int = 0
    contamination: Contamination = "refuse"

    def __post_init__(self) -> None:
        if self.per_prompt is not None and self.per_prompt < 1:
            raise UserError(f"harvest: per_prompt is {self.per_prompt}; give 1 or more, or None for all")
        for name, known in (("pick", get_args(Pick)), ("contamination", get_args(Contamination))):
            if getattr(self, name) not in known:
                raise UserError(f"harvest: {name} is {getattr(self, name)!r}; give {', '.join(known)}")


def harvest(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    demands: Demands,
    choice: Choice,
    held_out: Sequence[str | Path] = (),
    completion_key: str | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Harvest:
    """Write the accepted answers of finished or interrupted runs as supervised rows; see `rlpost.api.harvest`."""
    target = check_target(Path(output), force)
    runs = _opened(folders, overrides)
    column, prefix = completion_column(runs, completion_key)
    for run in runs:
        run.prefix = prefix
    count: Counter[str] = Counter()
    by_run: dict[str, Counter[str]] = {}
    notes: list[str] = []
    answers: list[Answer] = []
    places: list[str] = []
    for run in runs:
        own = by_run[str(run.path)] = Counter()
        found = list(run.answers(demands, own, notes.append))
        answers += found
        places += [str(run.path)] * len(found)
        count += own
    normal = _normal_form(runs, notes.append)
    chosen = _selected(answers, _held_out(runs, held_out), choice, normal, count, notes.append)
    left_out = {reason: count[reason] for reason in REASONS if count[reason]}
    if not chosen:
        raise DataError(
            f"harvest: nothing to write of {count['read']} rows ({listed(left_out)}){_known(demands, runs)}"
        )
    kept = [answers[place] for place in chosen]
    rows = written_rows(kept, runs[0].config.data, column, notes.append)
    check_written(rows, kept, runs[0].config.data, column)
    _write(target, rows)
    written = Counter(places[place] for place in chosen)
    return Harvest(
        output=str(output),
        rows=len(kept),
        read=count["read"],
        accepted=len(answers) + sum(count[name] for name in ("no_target", "empty", "prefix")),
        left_out=left_out,
        prompts=len({key(one.prompt) for one in kept}),
        tokens=_sizes([one.tokens for one in kept]),
        longest_row=max(one.length for one in kept),
        assurances=dict(Counter(str(one.source["assurance"] or "not recorded") for one in kept)),
        runs={path: {"read": own["read"], "written": written[path]} for path, own in by_run.items()},
        sft={"source": "jsonl", "train": str(output), "completion_key": column, "completion_prefix": prefix},
        notes=notes,
    )


def _selected(
    answers: Sequence[Answer],
    held_out: Sequence[Prompt],
    choice: Choice,
    normal: Callable[[str], str],
    count: Counter[str],
    note: Note,
) -> list[int]:
    """Places of the answers to write; what becomes of the others is counted."""
    clean = _uncontaminated(answers, held_out, choice.contamination, note)
    distinct = _distinct(answers, clean, normal, choice.pick)
    chosen = _chosen(answers, distinct, choice)
    count["contaminated"] = len(answers) - len(clean)
    count["duplicates"] = len(clean) - len(distinct)
    count["surplus"] = len(distinct) - len(chosen)
    return chosen


def _sizes(lengths: Sequence[int]) -> dict[str, float]:
    middle = {"median": statistics.median(lengths), "mean": statistics.fmean(lengths)}
    return {"min": min(lengths), **middle, "max": max(lengths)}


def _opened(folders: Sequence[str | Path], overrides: Sequence[str]) -> list[FinishedRun]:
    if not folders:
        raise UserError("harvest: no runs; give one run folder or more")
    seen: set[Path] = set()
    for folder in folders:
        real = Path(folder).resolve()
        if real in seen:
            raise UserError(f"harvest: {folder} is given twice; give each run once")
        seen.add(real)
    return [FinishedRun(folder, overrides) for folder in folders]


def key(prompt: Prompt) -> str:
    """What makes two prompts the same for supervised training: what the policy reads. Ids and other columns do not."""
    return json.dumps([asked(prompt), prompt.tools], ensure_ascii=False, default=str)


def _held_out(runs: Sequence[FinishedRun], given: Iterable[str | Path]) -> list[Prompt]:
    found = [prompt for run in runs for prompt in run.held_out()]
    for path in map(Path, given):
        if path.is_dir() and (path / "config.yaml").is_file():
            more = FinishedRun(path).held_out()
        elif path.suffix in (".yaml", ".yml"):
            data = load_config(path).config.data
            more = load.prompts(data, "eval") if data.eval is not None else []
        else:
            more = _from_file(runs[0], str(path))
        if not more:
            raise DataError(
                f"--held-out: {path} has no data.eval; give a file of rows, or a configuration that has one"
            )
        found += more
    return found


def _from_file(run: FinishedRun, path: str) -> list[Prompt]:
    """Rows of a file, read as the run's own if its source reads files, else as JSON lines."""
    data, train = run.config.data, run.config.data.train
    if not isinstance(train, str) and "path" not in train:
        data = data.model_copy(update={"source": "jsonl"})
    rows = load.rows(data, path, "--held-out")
    return load.make_prompts(data, rows, f"--held-out {path}", repeated_ids=True)


def _questions(prompt: Prompt) -> set[str]:
    """What a prompt asks: its statement where it has one, and what the policy reads."""
    return {question(prompt), question(replace(prompt, columns={}))}


def _uncontaminated(
    answers: Sequence[Answer], held_out: Sequence[Prompt], rule: Contamination, note: Note
) -> list[int]:
    known = {asked: prompt.id for prompt in held_out for asked in _questions(prompt)}
    hits = {place: _questions(one.prompt) & known.keys() for place, one in enumerate(answers)}
    bad = [place for place, common in hits.items() if common]
    if not bad:
        return list(hits)
    first = answers[bad[0]]
    example = (
        f"{len(bad)} of {len(answers)} accepted answers are to prompts that are held out (run {first.source['run']!r}, "
        f"prompt {shown(first.prompt.id)} asks what held-out prompt {shown(known[min(hits[bad[0]])])} asks)"
    )
    if rule == "refuse":
        raise DataError(f"harvest: {example}; give --contamination drop to leave them out, or allow to train on them")
    note(f"{example}; {'left out' if rule == 'drop' else 'written, as --contamination allow says'}")
    return [place for place, common in hits.items() if not common] if rule == "drop" else list(hits)


def _normal_form(runs: Sequence[FinishedRun], note: Note) -> Callable[[str], str]:
    """How the runs' verifier tells that two answers are the same; by their texts if it does not say or they differ."""
    names = {run.config.scoring.verifier for run in runs}
    if len(names) != 1 or None in names:
        return str.strip
    name = str(names.pop())
    try:
        found = registry.resolve("verifiers", name)
    except RlpostError as error:
        note(f"verifier {name!r} cannot be loaded ({error}); duplicates are told by their texts alone")
        return str.strip
    return declared_form(found) or str.strip


def _distinct(answers: Sequence[Answer], places: Iterable[int], normal: Callable[[str], str], pick: Pick) -> list[int]:
    """Places of the answers, of the same ones only the shortest (or the first, where that is picked)."""
    found: dict[tuple[str, tuple[str, ...]], int] = {}
    for place in places:
        one = answers[place]
        same = key(one.prompt), tuple(text if turn % 2 else normal(text) for turn, text in enumerate(one.target))
        if same not in found or (pick != "first" and one.tokens < answers[found[same]].tokens):
            found[same] = place
    return sorted(found.values())


def _chosen(answers: Sequence[Answer], places: Iterable[int], choice: Choice) -> list[int]:
    by_prompt: dict[str, list[int]] = {}
    for place in places:
        by_prompt.setdefault(key(answers[place].prompt), []).append(place)
    found: list[int] = []
    for group in by_prompt.values():
        texts = ["\n".join(answers[place].target[::2]) for place in group]
        lengths = [answers[place].tokens for place in group]
        found += [group[i] for i in choose(texts, lengths, choice.per_prompt, choice.pick, choice.seed)]
    return found


def _known(demands: Demands, runs: Sequence[FinishedRun]) -> str:
    if not demands.assurance:
        return ""
    seen: Counter[str] = Counter()
    for run in runs:
        for one in run.answers(Demands(min_reward=demands.min_reward), Counter(), lambda _: None):
            seen[str(one.source["assurance"] or "not recorded")] += 1
    return f"; accepted answers rest on: {listed(seen)}" if seen else ""


def listed(counts: Mapping[str, int]) -> str:
    """Counts in one line."""
    return ", ".join(f"{REASONS.get(name, name).split(' (')[0]}: {number}" for name, number in counts.items()) or "none"


def _write(target: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    try:
        replace_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except OSError as error:
        raise UserError(f"--output: {target} cannot be written ({error.strerror or error})") from None
