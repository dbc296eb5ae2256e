"""What a run may be resumed with, decided from its folder alone. Not covered: loading (tests/ray/test_loop.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.differences import with_values
from rlpost.config.load import from_dict, load
from rlpost.config.schema import RunConfig
from rlpost.errors import CheckpointError, UserError
from rlpost.loop.checkpoint import RunState, folder_of, write_files, write_state
from rlpost.loop.resume import Resume, fingerprint, prepare
from rlpost.observability.runfolder import RunFolder


def configured(tmp_path: Path, **sections: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "run": {"name": "r", "output_dir": str(tmp_path)},
        "model": {"path": str(tmp_path / "m"), "dtype": "float32"},
        "scoring": {"rewards": [{"name": "a.py:f"}]},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


def begun(config: RunConfig, step: int | None = 2, ranks: int = 0) -> RunFolder:
    """A run folder as it is after ``step`` steps; None: it died before its first checkpoint."""
    folder = RunFolder(config, resume=False)
    folder.create()
    (folder.path / "metrics.jsonl").write_text("")
    if step is not None:
        target = folder_of(folder.checkpoints, step)
        (target / "learner").mkdir(parents=True)
        if ranks:
            (target / "learner/learner").mkdir()
            (target / "learner/learner/mp_rank_00_model_states.pt").write_text("x")
        else:
            import torch

            torch.save({}, target / "learner/learner.pt")
        for rank in range(ranks):
            (target / f"learner/learner/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_text("x")
        write_state(target, RunState(step, step))
        write_files(target)
    return folder


def resumed(config: RunConfig, allow: bool = False) -> tuple[Resume, list[str]]:
    said: list[str] = []
    return prepare(config, RunFolder(config, resume=True), allow, said.append), said


TORCH = {"engine": "torch"}


def test_an_unchanged_run_goes_on_without_a_word(tmp_path: Path) -> None:
    config = configured(tmp_path, learner=TORCH)
    begun(config)
    how, said = resumed(config)
    assert (how.config, how.changes, said) == (config, {}, [])
    assert how.checkpoint == tmp_path / "r/checkpoints/step_000002"


def test_harmless_changes_are_said_and_taken(tmp_path: Path) -> None:
    begun(configured(tmp_path, learner=TORCH))
    how, said = resumed(configured(tmp_path, learner=TORCH, run={"steps": 300}))
    assert said == ["changed since the run was last started: run.steps: 100 → 300"]
    assert how.changes == {"run.steps": {"from": 100, "to": 300}}
    assert how.config.run.steps == 300


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"optimizer": {"lr": 0.01}}, "optimizer.lr: 1e-06 → 0.01"),
        ({"rollout": {"group_size": 4}}, "rollout.group_size: 8 → 4"),
        ({"run": {"seed": 3}}, "run.seed: 17 → 3"),
        ({"algorithm": {"recipe": "dapo"}}, "algorithm.recipe: none → dapo"),
        ({"data": {"train": "other.jsonl"}}, "data.train: {} → other.jsonl"),
        ({"scoring": {"truncated": "mask"}}, "scoring.truncated: auto → mask"),
    ],
)
def test_another_run_has_to_be_wanted(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    begun(configured(tmp_path, learner=TORCH))
    before = (tmp_path / "r/config.yaml").read_bytes()
    other = configured(tmp_path, learner=TORCH, **sections)
    with pytest.raises(UserError) as caught:
        resumed(other)
    message = str(caught.value)
    assert said in message
    assert "--allow-changes" in message
    assert "\n" not in message
    assert (tmp_path / "r/config.yaml").read_bytes() == before
    how, _ = resumed(other, allow=True)
    assert how.config == other
    assert said.partition(":")[0] in how.changes


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"path": "elsewhere"}}, "model.path"),
        ({"model": {"dtype": "bfloat16"}}, "model.dtype: float32 → bfloat16"),
        ({"tuning": {"method": "lora"}}, "tuning.method: full → lora"),
        ({"optimizer": {"name": "muon"}}, "optimizer.name: adamw → muon"),
    ],
)
def test_what_the_checkpoint_cannot_go_on_with_is_refused(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    begun(configured(tmp_path, learner=TORCH))
    for allow in (False, True):
        with pytest.raises(UserError) as caught:
            resumed(configured(tmp_path, learner=TORCH, **sections), allow)
        assert said in str(caught.value)
        assert f"set {said.partition(':')[0]}=" in str(caught.value)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_checkpoints_own_ranks_are_asked_for(tmp_path: Path, ranks: int, stage: int) -> None:
    """Also where an earlier version has written what it could not go on with into config.yaml."""
    begun(configured(tmp_path, learner={"workers": 3, "zero_stage": stage}), ranks=ranks)
    with pytest.raises(UserError, match=rf"is of {ranks} ranks?; set learner.workers={ranks}$"):
        resumed(configured(tmp_path, learner={"workers": 3, "zero_stage": stage}), allow=True)


def test_another_stage_or_engine_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, learner={"workers": 2, "zero_stage": 2})
    begun(config, ranks=2)
    with pytest.raises(UserError, match=r"zero_stage: 2 → 1; set learner.zero_stage=2"):
        resumed(with_values(config, {("learner", "zero_stage"): 1}))
    with pytest.raises(UserError, match=r"written by deepspeed; set learner.engine=deepspeed"):
        resumed(configured(tmp_path, learner={**TORCH, "workers": 2}))


def test_what_a_resume_changed_survives_the_next_one(tmp_path: Path) -> None:
    first = configured(tmp_path, learner=TORCH)
    begun(first)
    faster = with_values(first, {("optimizer", "lr"): 0.5})
    how, _ = resumed(faster, allow=True)
    folder = RunFolder(faster, resume=True)
    folder.create("print", 2, how.changes)
    how, said = resumed(first)  # the file as it was at the beginning
    assert how.config.optimizer.lr == 0.5
    assert how.changes == {}
    assert said == ["optimizer.lr: 0.5, as the run was told at an earlier resume, not 1e-06"]
    back, _ = resumed(first, allow=True)  # asked for
    assert back.config.optimizer.lr == 1e-6
    with pytest.raises(UserError, match=r"optimizer.lr: 0.5 → 0.25"):
        resumed(with_values(first, {("optimizer", "lr"): 0.25}))


def test_only_the_value_of_the_beginning_is_taken_for_an_untouched_file(tmp_path: Path) -> None:
    first = configured(tmp_path, learner=TORCH)
    begun(first)
    for before, after in ((1e-6, 0.5), (0.5, 0.25)):
        config = with_values(first, {("optimizer", "lr"): after})
        RunFolder(config, resume=True).create("p", 2, {"optimizer.lr": {"from": before, "to": after}})
    assert resumed(first)[0].config.optimizer.lr == 0.25
    with pytest.raises(UserError, match=r"optimizer.lr: 0.25 → 0.5"):
        resumed(with_values(first, {("optimizer", "lr"): 0.5}))
    again = with_values(first, {("optimizer", "lr"): 0.125})  # begun again: what was before does not count
    RunFolder(again, resume=True).create("p", 0, {"optimizer.lr": {"from": 0.25, "to": 0.125}})
    with pytest.raises(UserError, match=r"optimizer.lr: 0.125 → 1e-06"):
        resumed(first)


def test_the_record_says_what_changed_at_which_step(tmp_path: Path) -> None:
    first = configured(tmp_path, learner=TORCH)
    before = begun(first).record.read_text()
    second = with_values(first, {("run", "seed"): 5})
    folder = RunFolder(second, resume=True)
    folder.create("print", 2, {"run.seed": {"from": 17, "to": 5}})
    assert load(folder.record).config == second
    assert (folder.path / "config.until_step_2.yaml").read_text() == before
    [line] = folder.changed()
    assert (line["step"], line["changes"]) == (2, {"run.seed": {"from": 17, "to": 5}})
    folder.config = first
    folder.create("print", 2)
    assert load(folder.path / "config.until_step_2_2.yaml").config == second
    assert folder.starting_model() == "print"
    assert not list(folder.path.glob(".*"))


def test_a_run_that_died_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    config = configured(tmp_path)
    begun(config, step=None)
    with pytest.raises(UserError, match=r"add --resume to start it again \(it died before its first checkpoint\)"):
        RunFolder(config, resume=False)
    other = with_values(config, {("optimizer", "lr"): 0.5, ("model", "dtype"): "bfloat16"})
    how, said = resumed(other)  # nothing of the run is kept, so nothing is another one
    assert (how.checkpoint, how.config) == (None, other)
    assert len(said) == 2


def test_a_warm_start_that_was_made_otherwise_is_named(tmp_path: Path) -> None:
    config = configured(tmp_path, sft={"train": "a"})
    folder = begun(config, step=None)
    other = with_values(config, {("sft", "lr"): 0.5})
    assert resumed(other)[0].config == other
    folder.warm_start.mkdir()
    (folder.warm_start / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"sft.lr: 0.001 → 0.5, but .* remove it to make it again"):
        resumed(other)


@pytest.mark.parametrize("how", ["missing", "cut", "empty", "grown", "state", "list", "all", "version", "old"])
def test_a_torn_checkpoint_is_one_line_and_nothing_earlier_is_taken(tmp_path: Path, how: str) -> None:
    config = configured(tmp_path, learner=TORCH)
    folder = begun(config)
    begun_at = folder_of(folder.checkpoints, 1)
    begun_at.mkdir()
    target = folder_of(folder.checkpoints, 2)
    file = target / "learner/learner.pt"
    size = file.stat().st_size
    if how == "missing":
        file.unlink()
    elif how in ("cut", "empty", "old"):
        file.write_bytes(file.read_bytes()[: 0 if how == "empty" else size // 2])
        if how == "old":
            (target / "files.json").unlink()
    elif how == "grown":
        file.write_bytes(file.read_bytes() + b"x")
    elif how == "state":
        (target / "state.json").unlink()
    elif how == "list":
        (target / "files.json").write_text("{")
    elif how == "all":
        for each in list(target.rglob("*.*")):
            each.unlink()
    else:
        (target / "state.json").write_text(json.dumps({"step": 2, "format": 99, "rlpost": "9.0"}))
        write_files(target)
    with pytest.raises(CheckpointError) as caught:
        resumed(config)
    message = str(caught.value)
    assert "\n" not in message
    assert "step_000002" in message
    if how == "version":
        assert "resume with 9.0" in message
    else:
        assert "remove step_000002 to resume from step_000001" in message


def test_a_run_folder_whose_record_is_damaged_is_named(tmp_path: Path) -> None:
    config = configured(tmp_path, learner=TORCH)
    folder = begun(config)
    folder.record.write_text("run: {seed: x}")
    with pytest.raises(UserError, match=r"the run's own configuration cannot be read \(.*run.seed.*mend it"):
        resumed(config)


def test_a_moved_model_is_the_same_and_another_is_not(tmp_path: Path, tiny_model: str) -> None:
    import shutil

    old = configured(tmp_path, learner=TORCH, model={"path": tiny_model})
    folder = begun(old)
    folder.create(fingerprint(tiny_model))
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    new = configured(tmp_path, learner=TORCH, model={"path": str(moved)})
    assert resumed(new)[0].config == new
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.path"):
        resumed(new)
