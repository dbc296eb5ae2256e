"""Checkpoint folders: writing under a temporary name and renaming, finding, pruning."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rlpost.data.repair import FailedAnswer, Pool
from rlpost.errors import ActorLostError, CheckpointError, DeadlineError, first_line

_NAME = re.compile(r"step_(\d{6,})")
_STATE = "state.json"
_FILES = "files.json"
_POOL = "repair.jsonl"
_TORCH = "learner/learner.pt"
_DEEPSPEED = "learner/learner"
FORMAT = 2
"""Number of the checkpoint format; increased when older versions can no longer read what is written."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run besides the learner's own and the pool of rejected answers; all else follows from the step.

    Attributes:
        step: number of rollout batches done.
        tickets: number of groups admitted so far; the next ticket's number.
        best: highest evaluation score so far, None before the first evaluation.
        best_step: step after which that score was measured.
        rows: number of the data set's rows that were asked so far; None: as many as tickets, which is so as long as no
            prompts come from a pool of rejected answers.
    """

    step: int
    tickets: int = 0
    best: float | None = None
    best_step: int | None = None
    rows: int | None = None

    @property
    def next_row(self) -> int:
        """Position of the data set's next row."""
        return self.tickets if self.rows is None else self.rows


def version() -> str:
    """The installed version of rlpost."""
    try:
        return metadata.version("rlpost")
    except metadata.PackageNotFoundError:
        return "of a bare checkout"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which replaces ``target`` only if the block ends without an error.

    Raises:
        CheckpointError: if writing fails; nothing half-written is left, and ``target`` stays as it was.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        _replace(partial, target)
    except (ActorLostError, DeadlineError):
        raise
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise CheckpointError(
            f"{target}: could not be written ({first_line(error)}); free some space or change run.output_dir"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(new: Path, target: Path) -> None:
    """Replace ``target`` by ``new``, or leave ``target`` as it was."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    had = target.exists()
    if had:
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if had:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_state(folder: Path, state: RunState) -> None:
    """Write the run's state into a checkpoint folder, with the version of rlpost."""
    written = {name: value for name, value in asdict(state).items() if name != "rows" or value is not None}
    (folder / _STATE).write_text(json.dumps({**written, "format": FORMAT, "rlpost": version()}))


def read_state(folder: Path, prompts_per_step: int) -> RunState:
    """Read the run's state from a checkpoint folder.

    Args:
        folder: the checkpoint.
        prompts_per_step: groups per batch, from which the tickets of checkpoints before format 2 follow.

    Raises:
        CheckpointError: if it is missing or damaged, or was written in a newer format.
    """
    try:
        stored = dict(json.loads((folder / _STATE).read_text()))
        # checkpoints before 0.2 hold neither
        written, by = stored.pop("format", 0), stored.pop("rlpost", "0.1")
        if written > FORMAT:
            raise CheckpointError(
                f"{folder}: written by rlpost {by}, whose checkpoints {version()} does not read; resume with {by}"
            )
        if written < 2:
            stored["tickets"] = int(stored["step"]) * prompts_per_step
        return RunState(**stored)
    except CheckpointError:
        raise
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: damaged checkpoint ({error}); remove it and resume from an earlier one"
        ) from None


def write_pool(folder: Path, pool: Pool) -> None:
    """Write the pool of rejected answers into a checkpoint folder, if there is one."""
    if pool:
        (folder / _POOL).write_text("".join(json.dumps(asdict(one)) + "\n" for one in pool))


def read_pool(folder: Path) -> Pool:
    """Read the pool of rejected answers from a checkpoint folder; empty if it has none.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        lines = (folder / _POOL).read_text().splitlines()
    except FileNotFoundError:
        return ()
    try:
        return tuple(FailedAnswer(**json.loads(line)) for line in lines)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: damaged checkpoint ({_POOL}: {error}); remove it and resume from an earlier one"
        ) from None


def write_files(folder: Path) -> None:
    """Note the name and size of every file of a checkpoint, so that a torn copy is told before anything is loaded."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}
    (folder / _FILES).write_text(json.dumps(sizes))


def check_files(folder: Path) -> None:
    """Check that a checkpoint is whole, without loading it.

    Raises:
        CheckpointError: for a file that is missing, empty or cut, with its name.
    """
    problem = next(_torn(folder), None)
    if problem is None:
        return
    earlier = [step for step in steps(folder.parent) if folder_of(folder.parent, step) < folder]
    remedy = (
        f"remove {folder.name} to resume from {folder_of(folder.parent, earlier[-1]).name}"
        if earlier
        else f"copy it again, or remove {folder.name} to start from the beginning"
    )
    raise CheckpointError(f"{folder}: damaged checkpoint ({problem}); {remedy}")


def _torn(folder: Path) -> Iterator[str]:
    try:
        sizes = json.loads((folder / _FILES).read_text())
    except FileNotFoundError:  # written before 0.2
        sizes = {}
    except ValueError:
        yield f"{_FILES} is not JSON"
        return
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != size:
            yield f"{name} has {file.stat().st_size:,} bytes of {size:,}"
    if not (folder / _STATE).is_file():
        yield f"{_STATE} is missing"
    if not (folder / _TORCH).is_file() and not any((folder / _DEEPSPEED).glob("*.pt")):
        yield "the learner's files are missing"
    # torch.save writes zip files, whose end is the first thing that a cut takes away; DeepSpeed's are older pickles
    yield from (
        f"{file.relative_to(folder)} is cut"
        for file in _files(folder)
        if file.suffix == ".pt"
        and not (file.stat().st_size if file.parent == folder / _DEEPSPEED else zipfile.is_zipfile(file))
    )


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != _FILES)


def shards(folder: Path) -> tuple[str, int | None]:
    """Engine that wrote a checkpoint, and the number of ranks among which it is divided; None: any number reads it."""
    if (folder / _TORCH).is_file():
        return "torch", None
    ranks = len(list((folder / _DEEPSPEED).glob("*optim_states.pt")))
    return "deepspeed", ranks or None


def folder_of(checkpoints: Path, step: int) -> Path:
    """Folder of the checkpoint after ``step`` rollout batches."""
    return checkpoints / f"step_{step:06d}"


def steps(checkpoints: Path) -> list[int]:
    """Steps of all complete checkpoints, ascending."""
    if not checkpoints.is_dir():
        return []
    found = [match and int(match[1]) for match in (_NAME.fullmatch(path.name) for path in checkpoints.iterdir())]
    return sorted(step for step in found if step is not None)


def latest(checkpoints: Path) -> Path:
    """The newest complete checkpoint.

    Raises:
        CheckpointError: if there is none.
    """
    found = steps(checkpoints)
    if not found:
        raise CheckpointError(f"{checkpoints}: no checkpoint to resume from; start without --resume")
    return folder_of(checkpoints, found[-1])


def prune(checkpoints: Path, keep: int, best: int | None) -> None:
    """Remove all but the ``keep`` newest checkpoints and the best one."""
    for step in steps(checkpoints)[:-keep]:
        if step != best:
            shutil.rmtree(folder_of(checkpoints, step))
