"""What a run is resumed with: compared with what it was made with before anything is started or written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlpost.config.differences import Difference, differences, shown, with_values
from rlpost.config.schema import RunConfig
from rlpost.data.models import WEIGHT_FILES
from rlpost.errors import UserError
from rlpost.loop import checkpoint
from rlpost.observability.runfolder import RunFolder

_SAMPLE = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Resume:
    """How a run goes on.

    Attributes:
        config: the configuration, with the values that earlier resumes changed and this one does not mention.
        checkpoint: where it goes on from; None: from the beginning.
        changes: old and new value of every key that this resume changes.
    """

    config: RunConfig
    checkpoint: Path | None = None
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


def prepare(config: RunConfig, folder: RunFolder, allow_changes: bool, say: Callable[[str], None]) -> Resume:
    """Compare a configuration with the run that it resumes.

    A run without a checkpoint starts from the beginning: nothing of it is kept, so its settings may change.

    Args:
        config: the configuration that was given.
        folder: the run folder.
        allow_changes: whether the run may become another one from here on.
        say: called with a line for each difference.

    Raises:
        UserError: if the checkpoint cannot go on with a new value, or the run would be another one and
            ``allow_changes`` is false.
        CheckpointError: if the last checkpoint is damaged or of a later version.
    """
    last = checkpoint.latest(folder.checkpoints) if checkpoint.steps(folder.checkpoints) else None
    if last is not None:
        checkpoint.check_files(last)
        checkpoint.read_state(last, config.rollout.prompts_per_step)
        _check_shards(config, last)
    stored = folder.stored()
    if stored is None:
        return Resume(config, last)
    if not allow_changes:
        config = _carry(config, stored, folder.changed(), say)
    found = [one for one in differences(stored, config) if not _same_model(one, folder)]
    for one in found:
        say(f"changed since the run was last started: {one}")
    _refuse_fixed(found, last, folder)
    another = [one for one in found if one.effect == "asks"]
    if another and last is not None and not allow_changes:
        raise UserError(
            f"--resume: the run would be another one with {'; '.join(map(str, another))}; set "
            f"{' '.join(f'{one.key}={shown(one.old)}' for one in another)} to go on with it as it was, or add "
            "--allow-changes"
        )
    return Resume(config, last, {one.key: {"from": one.old, "to": one.new} for one in found})


def _carry(
    config: RunConfig, stored: RunConfig, changed: Sequence[Mapping[str, Any]], say: Callable[[str], None]
) -> RunConfig:
    """The configuration with what earlier resumes changed, where it says what it said at the beginning of the run."""
    begun = max((number for number, line in enumerate(changed) if line["step"] == 0), default=-1)
    earlier: dict[str, Any] = {}
    for line in changed[begun + 1 :]:
        for key, pair in line["changes"].items():
            earlier.setdefault(key, pair["from"])
    kept: dict[tuple[str, ...], Any] = {}
    for one in differences(stored, config):
        if one.effect == "asks" and one.key in earlier and one.new == earlier[one.key]:
            kept[one.path] = one.old
            say(f"{one.key}: {shown(one.old)}, as the run was told at an earlier resume, not {shown(one.new)}")
    return with_values(config, kept) if kept else config


def _refuse_fixed(found: Sequence[Difference], last: Path | None, folder: RunFolder) -> None:
    fixed = [one for one in found if one.effect == "fixed"]
    if last is None:
        if (
            any(one.path[0] == "sft" or one.path[:2] == ("model", "scratch") for one in fixed)
            and (folder.warm_start / "config.json").is_file()
        ):
            keys = "; ".join(map(str, fixed))
            raise UserError(f"--resume: {keys}, but {folder.warm_start} was made before; remove it to make it again")
        return
    if fixed:
        raise UserError(
            f"--resume: {last} cannot go on with {'; '.join(map(str, fixed))}; set "
            f"{' '.join(f'{one.key}={shown(one.old)}' for one in fixed)}, or start another run (run.name)"
        )


def _check_shards(config: RunConfig, last: Path) -> None:
    """The checkpoint's own files fit the learner, whatever the run folder's configuration says by now."""
    engine, ranks = checkpoint.shards(last)
    if engine != config.learner_engine:
        raise UserError(
            f"learner.engine: {config.learner_engine}, but the checkpoint {last} was written by {engine}; set "
            f"learner.engine={engine}, and learner.zero_stage and optimizer as in the run folder's config.yaml"
        )
    if config.zero_stage and ranks is not None and ranks != config.learner.workers:
        raise UserError(
            f"learner.workers: {config.learner.workers}, but the checkpoint {last} is of {ranks} rank"
            f"{'s' * (ranks > 1)}; set learner.workers={ranks}"
        )


def _same_model(one: Difference, folder: RunFolder) -> bool:
    """Whether another path of the model leads to the files that the run started from, as after a move."""
    if one.path != ("model", "path") or not isinstance(one.new, str) or one.new.startswith("package:"):
        return False
    return Path(one.new).is_dir() and fingerprint(one.new) == folder.starting_model()


def fingerprint(folder: str | Path) -> str:
    """A hash of a model's configuration and of samples of its weight files: start, middle and end of each."""
    path, found = Path(folder), hashlib.sha256()
    for file in [path / "config.json", *sorted(each for pattern in WEIGHT_FILES for each in path.glob(pattern))]:
        size = file.stat().st_size
        found.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for start in (0, size // 2, max(size - _SAMPLE, 0)):
                stream.seek(start)
                found.update(stream.read(_SAMPLE))
    return found.hexdigest()
