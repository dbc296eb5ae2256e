"""Configurations in all their forms, and answers that cannot be verified; whole runs: tests/ray/test_notebook.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rlpost
from rlpost.api import configuration, for_split
from rlpost.errors import ConfigError, UserError
from rlpost.rollout.sampling import evaluation_settings, settings

VALUES = {"model": {"path": "m"}, "scoring": {"rewards": [{"name": "f.py:f"}]}}


def test_a_configuration_is_a_path_a_mapping_or_itself(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text('model: {path: m}\nscoring: {rewards: [{name: "f.py:f"}]}\n')
    assert configuration(VALUES) == configuration(file) == configuration(str(file))
    assert configuration(configuration(VALUES)) is not None
    with pytest.raises(ConfigError, match=r"did you mean model\.path"):
        configuration({"model": {"paht": "m"}})


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = "import rlpost, sys; print([m for m in sys.modules if m.startswith('rlpost.')], dir(rlpost)[:0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = rlpost.trian  # pyright: ignore[reportAttributeAccessIssue]


def test_verify_answers_in_order_and_refuses_answers_without_text() -> None:
    found = rlpost.verify([{"text": "a"}, {"text": "b"}], "function", function=lambda text, columns: text == "a")
    assert [verdict.outcome for verdict in found] == ["accepted", "rejected"]
    with pytest.raises(UserError, match=r"answers\[1\]: 'text' is None"):
        rlpost.verify([{"text": "a"}, {"statement": "True"}], "function", function=lambda text, columns: True)


def test_an_evaluation_needs_held_out_data() -> None:
    with pytest.raises(UserError, match=r"data\.eval: missing"):
        rlpost.evaluate(VALUES, "nowhere")


def test_training_prompts_are_evaluated_as_they_are_sampled_in_training() -> None:
    sampling = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 99}
    data = {"train": "t.jsonl", "eval": "e.jsonl"}
    config = configuration({**VALUES, "data": data, "evaluation": {"sampling": sampling, "samples": 16}})
    assert for_split(config, "eval") is config
    train = for_split(config, "train")
    assert (train.data.eval, train.evaluation.samples) == ("t.jsonl", 16)
    assert evaluation_settings(train) == settings(config.rollout, logprobs=False)
