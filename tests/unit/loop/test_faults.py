"""What a dry run finds, check by check. Not covered: vLLM (tests/integration/test_vllm_support.py), whole commands."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.errors import UserError
from rlpost.loop.faults import all_faults, asked, data_faults, output_faults, package_faults, plugin_faults
from rlpost.loop.model_faults import model_faults

ENGINE = "class Engine:\n    pass\n\n\ndef reward(prompts, completions, **_):\n    return [0.0 for _ in completions]\n"


@pytest.fixture
def work(tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ENGINE)
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": "∀ p q : Prop, p → q :="}) + "\n")
    shutil.copytree(tiny_model, tmp_path / "m")
    return tmp_path


def configured(**sections: Any) -> RunConfig:
    """A run with an engine of the user's own, so that vLLM is not asked."""
    tree: dict[str, Any] = {
        "model": {"path": "m", "dtype": "float32"},
        "data": {"train": "prompts.jsonl"},
        "rollout": {"engine": "mine.py:Engine", "max_tokens": 8},
        "scoring": {"rewards": [{"name": "mine.py:reward"}]},
        "learner": {"engine": "torch"},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return from_dict(tree)


def test_a_good_run_has_no_fault(work: Path) -> None:
    assert all_faults(configured()) == []


def test_every_fault_is_found_at_once(work: Path) -> None:
    found = all_faults(
        configured(
            model={"path": "absent"},
            data={"train": "absent.jsonl", "source": "jsonll"},
            scoring={"rewards": [{"name": "outcom"}, {"name": "mine.py:rewrd"}], "verifier": "mathh"},
            rollout={"engine": "mine.py:Engin"},
        )
    )
    for part in ("scoring.rewards: reward 'outcom'", "did you mean outcome", "'mine.py:rewrd'", "did you mean reward",
                 "scoring.verifier: verifier 'mathh'", "rollout.engine: ", "data.source: source 'jsonll'",
                 "model.path: no such folder absent"):  # fmt: skip
        assert any(part in line for line in found), (part, found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("sections", "part"),
    [
        ({"scoring": {"rewards": [{"name": "mine.py:reward", "wieght": 2}]}}, "scoring.rewards: 'mine.py:reward' cannot take"),
        ({"scoring": {"rewards": [{"name": "outcome", "wieght": 2}], "verifier": "function",
                      "verifier_args": {"function": "math:isfinite"}}}, "scoring.rewards: 'outcome'"),
        ({"scoring": {"verifier": "function", "verifier_args": {"functio": "x"}}}, "scoring.verifier_args: 'function'"),
        ({"scoring": {"verifier": "lean.embeded"}}, "did you mean lean.embedded"),
        ({"environment": {"name": "mine.py:Game"}}, "environment.name: environment 'mine.py:Game'"),
        ({"environment": {"name": "mine.py:Engine", "args": {"x": 1}}}, "environment.args: 'mine.py:Engine'"),
        ({"data": {"template": "lean.relased"}}, None),  # text without fields is a template's name only if it is known
        ({"algorithm": {"loss": "mine.py:los"}}, "algorithm.loss: loss 'mine.py:los'"),
        ({"algorithm": {"advantage": "nowhere:f"}}, "algorithm.advantage: "),
        ({"scoring": {"rewards": [{"name": "nofile.py:f"}]}}, "no file nofile.py"),
    ],
)  # fmt: skip
def test_plug_ins_are_resolved_and_made(work: Path, sections: dict[str, Any], part: str | None) -> None:
    found = list(plugin_faults(configured(**sections)))
    if part is None:
        assert not any("scoring" in line for line in found)
    else:
        assert any(part in line for line in found), found
    assert not any("\n" in line for line in found)


def test_a_reward_whose_file_fails_is_named_with_its_line(work: Path) -> None:
    (work / "broken.py").write_text("x = 1\ny = 1 / 0\n")
    [line] = plugin_faults(configured(scoring={"rewards": [{"name": "broken.py:f"}]}))
    assert "broken.py:2" in line
    assert "ZeroDivisionError" in line


@pytest.mark.parametrize(
    ("train", "held_out", "parts"),
    [
        ("", None, ["data.train: ", "no rows"]),
        ("{", None, ["data.train: ", ":1: not valid JSON"]),
        ('{"question": "x"}', None, ["data.train, row 0", "no column 'prompt'"]),
        ('{"prompt": "p"}', "[1]", ["data.eval: ", "expected a JSON object"]),
        ('{"prompt": "%s"}' % ("p " * 300), None, ["data.train: prompt '0' has", "shorten it"]),
        ('{"prompt": "p"}', '{"prompt": "%s"}' % ("q " * 300), ["data.eval: prompt '0' has"]),
        ("[", "{", ["data.train: ", "data.eval: "]),
        ('{"prompt": "p"}', '{"prompt": "p"}', ["held-out"]),
        ('{"prompt": 3}', None, ["data.train, row 0", "expected text or a list"]),
        ('{"prompt": "p", "id": 1}\n{"prompt": "q", "id": 1}', None, ["given twice"]),
    ],
)
def test_both_splits_are_read_and_tokenised(work: Path, train: str, held_out: str | None, parts: list[str]) -> None:
    (work / "t.jsonl").write_text(train)
    data: dict[str, Any] = {"train": "t.jsonl"}
    if held_out is not None:
        (work / "e.jsonl").write_text(held_out)
        data["eval"] = "e.jsonl"
    _, lines = data_faults(configured(data=data), "m")
    for part in parts:
        assert any(part in line for line in lines), lines


@pytest.mark.parametrize(
    ("repair", "part"),
    [
        ({"template": "{prompt} {proof} {messages}"}, None),
        ({}, "data.repair.template: missing"),
        ({"template": "{informal} {messages}"}, "'informal'"),
        ({"template": "{messages}", "max_prompt_tokens": 1}, "data.repair.max_prompt_tokens: 1 tokens are left"),
    ],
)
def test_prompts_that_ask_answers_again_are_tried(work: Path, repair: dict[str, Any], part: str | None) -> None:
    verifier = {"verifier": "function", "verifier_args": {"function": "mine.py:reward"}}
    _, lines = data_faults(configured(data={"repair": repair}, scoring=verifier), "m")
    assert len(lines) == (part is not None)
    assert part is None or part in lines[0]


def test_a_model_that_is_still_to_be_made_leaves_the_data_to_read(work: Path) -> None:
    sections: dict[str, Any] = {"model": {"path": None, "scratch": {}}, "sft": {"train": "absent.jsonl"}}
    found = all_faults(
        configured(**sections, data={"train": "gone.jsonl"}), lambda: (_ for _ in ()).throw(UserError("w"))
    )
    assert "w" in found
    assert "data.train: gone.jsonl: no such file; give the path of a data file" in found


@pytest.mark.parametrize(
    ("tuning", "part"),
    [
        ({"method": "lora", "lora": {"targets": ["q_prj"]}}, "q_prj"),
        ({"method": "lora", "lora": {"targets": ["q_prj"], "init": "pissa"}}, "q_prj"),
        ({"method": "subnetwork", "subnetwork": {"targets": ["nothing"]}}, "tuning.subnetwork.targets"),
        ({"method": "subnetwork", "subnetwork": {"mask": "file", "file": "gone.safetensors"}}, "gone.safetensors"),
        ({"method": "subnetwork", "subnetwork": {"mask": "random", "like": "gone"}}, "tuning.subnetwork.like: gone"),
        ({"method": "peft:nothing"}, "tuning.method"),
        ({"method": "peft:miss", "peft": {"rank": 3}}, "tuning.peft"),
        ({"method": "lora"}, None),
        ({"method": "lora", "lora": {"init": "pissa"}}, None),
        ({"method": "lora_xs"}, None),
        ({"method": "subnetwork", "subnetwork": {"mask": "magnitude"}}, None),
        ({"method": "full"}, None),
    ],
)
def test_targets_are_compared_with_the_model_without_its_weights(
    work: Path, tuning: dict[str, Any], part: str | None
) -> None:
    (work / "m/model.safetensors").write_bytes(b"")  # nothing reads them
    found = list(model_faults(configured(tuning=tuning), "m"))
    if part is None:
        assert found == []
    else:
        assert any(part in line for line in found), found


def test_a_model_that_transformers_does_not_know_is_one_line(work: Path) -> None:
    for text, part in (('{"model_type": "t5"}', "T5Config"), ('{"model_type": "lama"}', "lama"), ("{", "config.json")):
        (work / "m/config.json").write_text(text)
        [line] = model_faults(configured(), "m")
        assert line.startswith("model.path: no causal language model can be built from m (")
        assert part in line
        assert "\n" not in line


def test_packages_that_are_missing_are_named_with_their_command(work: Path) -> None:
    wanted = configured(
        logging={"wandb_project": "p", "tensorboard": True}, optimizer={"name": "pytorch_optimizer:lion"}, sft={}
    )
    found = list(package_faults(wanted))
    for module, key in (("wandb", "logging.wandb_project"), ("tensorboard", "logging.tensorboard"),
                        ("pytorch_optimizer", "optimizer.name"), ("trl", "sft")):  # fmt: skip
        absent = importlib.util.find_spec(module) is None
        assert any(line.startswith(f"{key}: ") and "pip install" in line for line in found) is absent
    assert list(package_faults(configured())) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(work: Path) -> None:
    (work / "shut").mkdir(mode=0o555)
    assert "cannot be written" in next(output_faults(configured(run={"output_dir": "shut/runs"})))


def test_a_file_in_place_of_the_output_folder_is_named(work: Path) -> None:
    [line] = output_faults(configured(run={"output_dir": "prompts.jsonl"}))
    assert line.startswith("run.output_dir: prompts.jsonl: ")


def test_an_exception_of_a_library_is_a_fault_too() -> None:
    def broken() -> None:
        raise ZeroDivisionError("no\nmore")

    assert asked(broken, "data.train: ") == ["data.train: ZeroDivisionError: no"]
    assert asked(lambda: None) == []
