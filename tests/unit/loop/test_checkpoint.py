"""Checkpoint folders. Not covered: the learner's files in them (tests/unit/learner/test_policy_learner.py)."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from rlpost.errors import ActorLostError, CheckpointError, DeadlineError
from rlpost.loop.checkpoint import (
    FORMAT,
    RunState,
    atomic_folder,
    folder_of,
    latest,
    prune,
    read_state,
    steps,
    version,
    write_state,
)


def save(target: Path, text: str) -> None:
    with atomic_folder(target) as partial:
        (partial / "file").write_text(text)


def save_half(target: Path, error: BaseException) -> None:
    with atomic_folder(target) as partial:
        (partial / "file").write_text("half")
        raise error


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "step_000001"
    with atomic_folder(target) as partial:
        (partial / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert [p.name for p in target.parent.iterdir()] == ["step_000001"]


def test_a_second_save_takes_the_place_of_the_first(tmp_path: Path) -> None:
    target = tmp_path / "model"
    save(target, "old")
    save(target, "new")
    assert (target / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), ActorLostError("lost")])
def test_an_exception_inside_leaves_nothing_and_keeps_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "step_000001"
    save(target, "old")
    with pytest.raises(type(error)):
        save_half(target, error)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    assert (target / "file").read_text() == "old"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("[enforce fail] No space left on device\n at x")],
)
def test_a_full_disk_is_one_line_with_a_remedy(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "step_000001"
    save(target, "old")
    with pytest.raises(CheckpointError) as caught:
        save_half(target, error)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{target}: could not be written")
    assert "No space left on device" in message
    assert "free some space" in message
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    assert (target / "file").read_text() == "old"


def test_a_failure_at_the_very_end_keeps_the_old_folder_too(tmp_path: Path) -> None:
    """The last rename fails (here because the folder is gone): the old folder stays."""
    target = tmp_path / "step_000001"
    save(target, "old")
    with pytest.raises(CheckpointError), atomic_folder(target) as partial:
        shutil.rmtree(partial)
    assert target.is_dir()
    assert (target / "file").read_text() == "old"


def test_what_a_killed_process_left_behind_does_not_block_the_next_save(tmp_path: Path) -> None:
    target = tmp_path / "model"
    save(target, "old")
    for name in (".model.partial", ".model.old"):  # killed while writing, and just before the last clean-up
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("left over")
    save(target, "new")
    assert (target / "file").read_text() == "new"


def test_a_deadline_inside_is_not_a_full_disk(tmp_path: Path) -> None:
    """`DeadlineError` is an OSError by inheritance (TimeoutError), but freeing disk space is not its remedy."""
    with pytest.raises(DeadlineError, match="learner"), atomic_folder(tmp_path / "step_000001"):
        raise DeadlineError("learner: write checkpoint not done after 1800 s")


def test_the_state_survives(tmp_path: Path) -> None:
    for state in (RunState(0), RunState(7, 0.1 + 0.2, 5)):
        write_state(tmp_path, state)
        assert read_state(tmp_path, 3) == state


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"step": 1, "other": 2}', "{}"])
def test_a_damaged_state_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"damaged checkpoint .* resume from an earlier one") as caught:
        read_state(tmp_path, 3)
    assert "\n" not in str(caught.value)


def test_checkpoints_are_found_by_number_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    for step in (2, 10, 1_000_000):
        save(folder_of(tmp_path, step), "x")
    (tmp_path / ".step_000011.partial").mkdir()
    (tmp_path / "step_12").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert steps(tmp_path) == [2, 10, 1_000_000]
    assert latest(tmp_path) == tmp_path / "step_1000000"
    assert steps(tmp_path / "absent") == []
    with pytest.raises(CheckpointError, match="no checkpoint to resume from; start without --resume"):
        latest(tmp_path / "absent")


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(2, None, [3, 4]), (2, 1, [1, 3, 4]), (1, 4, [4]), (9, None, [1, 2, 3, 4]), (1, 99, [4])],
)
def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    for step in (1, 2, 3, 4):
        save(folder_of(tmp_path, step), "x")
    prune(tmp_path, keep, best)
    assert steps(tmp_path) == left


def test_a_checkpoint_says_which_version_wrote_it(tmp_path: Path) -> None:
    write_state(tmp_path, RunState(4, 12, 0.5, 2))
    assert read_state(tmp_path, 3) == RunState(4, 12, 0.5, 2)
    stored = json.loads((tmp_path / "state.json").read_text())
    assert (stored["format"], stored["rlpost"]) == (FORMAT, version())


def test_a_checkpoint_of_version_0_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": 4, "best": null, "best_step": null}')
    assert read_state(tmp_path, 3) == RunState(4, tickets=12)  # four steps of three prompts


def test_a_checkpoint_of_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": 4, "tickets": 7, "format": 9, "rlpost": "3.1.0"}')
    with pytest.raises(CheckpointError, match=r"written by rlpost 3\.1\.0, whose checkpoints .* resume with 3\.1\.0"):
        read_state(tmp_path, 3)
