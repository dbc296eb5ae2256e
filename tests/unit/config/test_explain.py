"""Refusals in the user's words: keys, values, remedies, hints for the names of other libraries, and all faults at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlpost.config.explain import expected, shown
from rlpost.config.hints import _NAMES, hint, section_at
from rlpost.config.load import examine, from_dict
from rlpost.errors import ConfigError

GOOD: dict[str, Any] = {"model": {"path": "m"}, "scoring": {"verifier": "function"}}


def refusal(section: str, values: Any) -> str:
    given = {**GOOD.get(section, {}), **values} if isinstance(values, dict) else values
    with pytest.raises(ConfigError) as caught:
        from_dict({**GOOD, section: given})
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("optimizer", {"lr": True}, "optimizer.lr: expected a number above 0, got true"),
        ("optimizer", {"lr": "fast"}, "optimizer.lr: expected a number above 0, got 'fast'"),
        ("optimizer", {"lr": [1e-5]}, "optimizer.lr: expected a number above 0, got [1e-05]"),
        ("optimizer", {"lr": None}, "optimizer.lr: expected a number above 0, got null"),
        ("optimizer", {"lr": 0}, "optimizer.lr: expected a number above 0, got 0"),
        ("optimizer", {"lr": -1e-6}, "optimizer.lr: expected a number above 0, got -1e-06"),
        ("optimizer", {"lr": float("nan")}, "optimizer.lr: expected a number above 0, got .nan"),
        ("optimizer", {"betas": [0.9, True]}, "optimizer.betas: expected a list of 2 values (each a number of at"),
        ("optimizer", {"betas": [0.9]}, "optimizer.betas: expected a list of 2 values"),
        ("optimizer", {"grad_clip": True}, "optimizer.grad_clip: expected a number above 0 or null, got true"),
        ("algorithm", {"std": "group"}, "algorithm.std: expected true, false or batch, got 'group'"),
        ("algorithm", {"clip": 0.2}, "algorithm.clip: expected a list of 2 values (each a number of at least 0), got 0.2"),
        ("algorithm", {"clip": [0.2, -0.1]}, "algorithm.clip: expected a list of 2 values"),
        ("algorithm", {"std_ddof": True}, "algorithm.std_ddof: expected 0 or 1, got true"),
        ("algorithm", {"loss": "grpo_clip"}, "algorithm.loss: 'grpo_clip' is not known; "),
        ("algorithm", {"loss": "CISPO"}, "algorithm.loss: 'CISPO' is not known; did you mean cispo"),
        ("learner", {"zero_stage": True}, "learner.zero_stage: expected 0, 1, 2 or 3, got true"),
        ("learner", {"workers": 10**9}, "learner.workers: expected a whole number of at least 1 and at most 4096, got 10"),
        ("run", {"seed": 1.5}, "run.seed: expected a whole number of at least 0, got 1.5"),
        ("run", {"seed": 10**40}, "run.seed: expected a whole number of at least 0 and at most 9007199254740992, got 1"),
        ("run", {"name": 2024}, "run.name: expected text, got 2024; write it in quotes"),
        ("run", {"name": "a/b"}, "run.name: 'a/b' is not allowed; it is: Name of the run folder"),
        ("run", 3, "run: expected keys with values, got 3"),
        ("data", {"train": 3}, "data.train: expected text or keys with values, got 3"),
        ("data", {"template": "{}?"}, "data.template: {} in '{}?' names no column; write {column}, or {{}} for braces"),
        ("data", {"template": 'as {"x": 1}'}, "data.template: {\"x\"} in 'as {\"x\": 1}' names no column"),
        ("data", {"chat_template": [["user"]]}, "data.chat_template: expected a list of lists of 2 values (each text)"),
        ("scoring", {"rewards": [3]}, "scoring.rewards, entry 1: expected keys with values, such as {name: outcome}"),
        ("scoring", {"rewards": ["outcome", {"nam": "x"}]}, 'scoring.rewards, entry 2: name is missing, got {"nam": "x"}'),
        ("scoring", {"rewards": None}, "scoring.rewards: expected a list of keys with values, got null"),
        ("environment", {}, "environment.name: missing; it is: The environment"),
        ("evaluation", {"k": "all"}, "evaluation.k: expected a list of whole numbers of at least 1 or powers, got 'all'"),
        ("evaluation", {"k": [True]}, "evaluation.k: expected a list of whole numbers of at least 1 or powers, got [true]"),
        ("tuning", {"lora": {"rank_pattern": {"q": True}}}, "tuning.lora.rank_pattern: expected keys with values (each"),
        ("tuning", {"lora": {"targets": []}}, "tuning.lora.targets: expected all-linear or a list of texts, got []"),
        ("model", {"scratch": 3}, "model.scratch: expected keys with values or null, got 3"),
    ],
)  # fmt: skip
def test_a_refusal_names_key_value_and_what_is_wanted(section: str, values: Any, message: str) -> None:
    said = refusal(section, values)
    assert said.startswith(message), said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("learning_rate", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("rollout.num_generations", "rollout.group_size"),
        ("rollout.n", "rollout.group_size"),
        ("algorithm.beta", "algorithm.kl.coef"),
        ("algorithm.kl_loss_coef", "algorithm.kl.coef"),
        ("max_completion_length", "rollout.max_tokens"),
        ("rollout.max_new_tokens", "rollout.max_tokens"),
        ("data.max_prompt_length", "data.max_prompt_tokens"),
        ("tuning.lora.rank", "tuning.lora.r"),
        ("tuning.lora.lora_alpha", "tuning.lora.alpha"),
        ("tuning.lora.target_modules", "tuning.lora.targets"),
        ("algorithm.epsilon", "algorithm.clip"),
        ("algorithm.clip_ratio_high", "algorithm.clip"),
        ("algorithm.loss_type", "algorithm.aggregate"),
        ("algorithm.scale_rewards", "algorithm.std"),
        ("algorithm.num_iterations", "algorithm.epochs"),
        ("learner.ppo_mini_batch_size", "algorithm.minibatch_size"),
        ("optimizer.max_grad_norm", "optimizer.grad_clip"),
        ("optimizer.lr_scheduler_type", "optimizer.schedule"),
        ("run.max_steps", "run.steps"),
        ("run.save_steps", "run.checkpoint_every"),
        ("evaluation.eval_steps", "evaluation.every"),
        ("rollout.tensor_model_parallel_size", "rollout.tensor_parallel"),
        ("model.model_name_or_path", "model.path"),
        ("logging.report_to", "logging.wandb_project"),
        ("reward_funcs", "scoring.rewards"),
        ("seed", "run.seed"),
        ("lr", "optimizer.lr"),
        ("rollout.grup_size", "rollout.group_size"),
    ],
)
def test_names_of_other_libraries_lead_to_ours(key: str, meant: str) -> None:
    assert hint(key.split(".")) == f"did you mean {meant}?"


def test_every_hint_leads_to_a_key_and_no_name_is_given_twice() -> None:
    names = [name for others in _NAMES.values() for name in others]
    assert len(names) == len(set(names))
    for key in _NAMES:
        *section, name = key.split(".")
        model = section_at(section)
        assert model is not None
        assert name in model.model_fields


def test_what_is_not_here_is_said_with_the_reason() -> None:
    assert hint(("tuning", "lora", "lora_dropout")).startswith("there is no dropout")
    assert hint(("algorithm", "gamma")).startswith("there is no discount")
    assert hint(("nonsense",)).startswith("known here: run, model, data")


@pytest.mark.parametrize(
    ("section", "values", "attribute", "expected_value"),
    [
        ("optimizer", {"lr": "1e-5"}, "lr", 1e-5),  # quoted in YAML: it can only mean the number
        ("optimizer", {"lr": 1}, "lr", 1.0),
        ("run", {"steps": 1e3}, "steps", 1000),
        ("algorithm", {"std": False}, "std", False),
        ("algorithm", {"std": "batch"}, "std", "batch"),
        ("data", {"shuffle": "no"}, "shuffle", False),
        ("data", {"chat_template": [{"role": "user", "content": "{q}"}]}, "chat_template", (("user", "{q}"),)),
        ("data", {"template": "{{}} {q}"}, "template", "{{}} {q}"),
        ("optimizer", None, "lr", 1e-6),  # an empty section of YAML
    ],
)
def test_what_can_only_mean_one_thing_is_read(section: str, values: Any, attribute: str, expected_value: Any) -> None:
    given = {**GOOD.get(section, {}), **values} if values else values
    found = getattr(getattr(from_dict({**GOOD, section: given}), section), attribute)
    assert (found, type(found)) == (expected_value, type(expected_value))


def test_a_reward_may_be_written_as_its_name() -> None:
    for given in ("outcome", ["outcome"], {"name": "outcome"}, [{"name": "outcome"}]):
        [stage] = from_dict({**GOOD, "scoring": {"verifier": "function", "rewards": given}}).scoring.rewards
        assert (stage.name, stage.arguments) == ("outcome", {})


def test_all_faults_are_told_with_their_lines_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {path: m}\noptimizer:\n  lr: true\nrollout:\n  group_size: 1\n")
    found = examine(file, ["run.sed=3", "algorithm.loss=clip", "scoring.verifier=math"])
    assert found.faults == (
        "override run.sed=3: unknown key 'run.sed'; did you mean run.seed?",
        found.faults[1],
        found.faults[2],
        found.faults[3],
    )
    assert found.faults[1].startswith(f"{file}:3: optimizer.lr: expected a number above 0, got true")
    assert found.faults[2].startswith(f"{file}:5: rollout.group_size: 1 with")
    assert found.faults[3].startswith("override algorithm.loss=clip: algorithm.loss: 'clip' is not known")
    assert found.wrong == ("run.sed", "optimizer.lr")
    assert found.config is not None
    assert found.config.rollout.group_size == 1  # what is right is kept, so that more can be looked at


def test_a_required_key_that_is_wrong_leaves_nothing_to_look_at(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {path: m}\nenvironment: {args: {}}\nscoring: {rewards: [x.py:f]}\n")
    found = examine(file)
    assert (found.config, len(found.faults)) == (None, 1)


def test_values_are_shown_as_they_are_written() -> None:
    assert [shown(value) for value in (True, None, 1e-6, "a", [None], float("inf"))] == [
        "true", "null", "1e-06", "'a'", "[null]", ".inf",
    ]  # fmt: skip
    assert len(shown("x" * 1000)) == 81
    assert expected(dict[str, Any] | None) == "keys with values or null"
