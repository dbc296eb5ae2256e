"""Every key says what a new value means to a resumed run, and differences are told by it. Not covered: checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from rlpost.config.differences import UNSET, declared, differences, shown, with_values
from rlpost.config.load import flatten, from_dict
from rlpost.config.schema import RunConfig
from rlpost.config.section import Section


def configured(**sections: Any) -> RunConfig:
    return from_dict({"model": {"path": "m"}, "scoring": {"rewards": [{"name": "a.py:f"}]}, **sections})


def models(model: type[Section] = RunConfig) -> Iterator[type[Section]]:
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            for one in (part, *get_args(part)):
                if isinstance(one, type) and issubclass(one, Section):
                    yield from models(one)


@pytest.mark.parametrize("model", sorted(set(models()), key=lambda m: m.__name__), ids=lambda m: m.__name__)
def test_every_key_says_what_a_new_value_means_to_a_resumed_run(model: type[Section]) -> None:
    """A new key belongs into ``ON_RESUME`` of its section: free, asks or fixed."""
    assert set(model.ON_RESUME) == set(model.model_fields)


def test_every_leaf_of_a_configuration_has_a_class() -> None:
    config = configured(sft={"train": "x"}, environment={"name": "e.py:E", "args": {"depth": 3}})
    assert {declared(path) for path in flatten(config)} == {"free", "asks", "fixed"}
    with pytest.raises(KeyError, match="optimiser"):
        declared(("optimiser", "lr"))


@pytest.mark.parametrize(
    ("key", "old", "new", "effect"),
    [
        ("optimizer.lr", 1e-6, 1e-5, "asks"),
        ("optimizer.weight_decay", 0.0, 0.1, "asks"),
        ("optimizer.betas", [0.9, 0.999], [0.9, 0.95], "asks"),
        ("optimizer.name", "adamw", "muon", "fixed"),
        ("rollout.group_size", 8, 16, "asks"),
        ("rollout.temperature", 1.0, 0.7, "asks"),
        ("rollout.max_tokens", 256, 512, "asks"),
        ("rollout.timeout_s", 600.0, 60.0, "free"),
        ("rollout.kv_cache_mb", None, 64, "free"),
        ("run.seed", 17, 18, "asks"),
        ("run.steps", 100, 200, "free"),
        ("run.checkpoint_every", 0, 5, "free"),
        ("data.train", "a.jsonl", "b.jsonl", "asks"),
        ("data.eval", None, "b.jsonl", "free"),
        ("scoring.truncated", "reject", "mask", "asks"),
        ("algorithm.kl.coef", 0.0, 0.1, "asks"),
        ("algorithm.clip", [0.2, 0.2], [0.2, 0.28], "asks"),
        ("model.path", "m", "other", "fixed"),
        ("model.dtype", "bfloat16", "float32", "fixed"),
        ("tuning.method", "full", "lora", "fixed"),
        ("tuning.lora.r", 16, 8, "free"),  # of a method that is not used
        ("optimizer.lowrank.rank", 128, 8, "free"),
        ("learner.zero_stage", 0, 2, "fixed"),
        ("learner.zero_stage", 0, 1, "free"),  # the same in bfloat16
        ("learner.micro_tokens", 4096, 64, "free"),
        ("learner.engine", "auto", "deepspeed", "free"),  # what auto means here
        ("learner.engine", "auto", "torch", "fixed"),
        ("cluster.address", "local", "auto", "free"),
        ("logging.wandb_project", None, "p", "free"),
        ("evaluation.samples", 8, 16, "free"),
        ("selfcheck.canary", True, False, "free"),
    ],
)
def test_a_difference_is_told_with_its_meaning(key: str, old: Any, new: Any, effect: str) -> None:
    path = tuple(key.split("."))
    before = with_values(configured(), {path: old})
    [found] = [one for one in differences(before, with_values(before, {path: new})) if one.path == path]
    assert (found.key, found.old, found.new, found.effect) == (key, old, new, effect)
    assert str(found) == f"{key}: {shown(old)} → {shown(new)}"


def test_settings_of_the_method_that_is_used_are_fixed() -> None:
    lora = configured(tuning={"method": "lora"})
    [found] = differences(lora, with_values(lora, {("tuning", "lora", "r"): 8}))
    assert (str(found), found.effect) == ("tuning.lora.r: 16 → 8", "fixed")


def test_more_steps_are_another_run_where_the_learning_rate_follows_them() -> None:
    cosine = configured(optimizer={"schedule": "cosine"})
    [found] = differences(cosine, with_values(cosine, {("run", "steps"): 200}))
    assert found.effect == "asks"


def test_ranks_are_free_where_nothing_is_sharded() -> None:
    for learner, effect in (({"engine": "torch"}, "free"), ({"zero_stage": 2}, "fixed")):
        before = configured(learner=learner)
        [found] = differences(before, with_values(before, {("learner", "workers"): 2}))
        assert found.effect == effect


def test_the_same_folder_by_another_path_is_no_difference(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert differences(configured(), configured(model={"path": str(tmp_path / "m")})) == []
    assert differences(configured(), configured(model={"path": "x/../m"})) == []


def test_a_section_that_appears_is_told_key_by_key() -> None:
    found = differences(configured(), configured(environment={"name": "e.py:E"}))
    assert {(one.old, one.effect) for one in found} == {(UNSET, "asks"), (UNSET, "free")}
    assert "environment.name: (not set) → e.py:E" in map(str, found)
    assert "environment" not in {one.key for one in found}


def test_arguments_of_a_plug_in_are_told_one_by_one() -> None:
    first = configured(scoring={"verifier": "function", "verifier_args": {"function": "a:b", "x": 1}})
    second = configured(scoring={"verifier": "function", "verifier_args": {"function": "a:b", "x": 2}})
    assert [str(one) for one in differences(first, second)] == ["scoring.verifier_args.x: 1 → 2"]


def test_long_values_are_cut_and_equal_configurations_do_not_differ() -> None:
    assert len(shown("x" * 500)) == 61
    assert differences(configured(), configured()) == []
