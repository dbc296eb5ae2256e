"""Every rule across sections, broken once. Not covered: rules of a single field (test_config_load.py)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rlpost.config import checks
from rlpost.config.load import from_dict
from rlpost.errors import ConfigError
from rlpost.plugins.algorithm import advantage_settings, build_advantage, build_loss, example_inputs
from rlpost.plugins.trial_algorithm import try_loss

GOOD: dict[str, Any] = {"model": {"path": "m"}, "scoring": {"verifier": "function"}}
SCRATCH: dict[str, Any] = {"model": {"path": None, "scratch": {}}, "sft": {}}


def changed(*patches: dict[str, Any]) -> dict[str, Any]:
    tree = copy.deepcopy(GOOD)
    for patch in patches:
        for section, values in patch.items():
            tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return tree


TALK: dict[str, Any] = {"environment": {"name": "game.py:Game"}}

BROKEN: list[tuple[str, dict[str, Any], str, list[str]]] = [
    # rule, change, key at the start of the message, texts it must contain (values and remedy)
    ("check_policy_start", {"model": {"scratch": {}}, "sft": {}}, "model.path", ["'m'", "model.scratch", "keep one"]),
    ("check_policy_start", {"model": {"path": None, "scratch": {}}}, "model.scratch", ["add an sft section"]),
    ("check_policy_start", {"model": {"path": None}}, "model.path", ["missing", "give a Hugging Face folder"]),
    (
        "check_scratch_shape",
        {"model": {"path": None, "scratch": {"hidden_size": 130, "heads": 4}}, "sft": {}},
        "model.scratch.hidden_size",
        ["130", "multiple", "4"],
    ),
    (
        "check_scratch_shape",
        {"model": {"path": None, "scratch": {"whole_lines": 60}}, "sft": {}},
        "model.scratch.whole_lines",
        ["60", "not set", "440"],
    ),
    (
        "check_scratch_shape",
        {"model": {"path": None, "scratch": {"vocabulary": 400, "whole_lines": 60}}, "sft": {}},
        "model.scratch.whole_lines",
        ["60", "400", "440"],
    ),
    (
        "check_scratch_shape",
        {"model": {"path": None, "scratch": {"hidden_size": 128, "heads": 4, "kv_heads": 3}}, "sft": {}},
        "model.scratch.kv_heads",
        ["3", "divide", "4"],
    ),
    (
        "check_scratch_shape",
        {"model": {"path": None, "scratch": {"hidden_size": 64, "heads": 4}}, "sft": {}},
        "model.scratch.heads",
        ["16", "multiple of 32"],
    ),
    ("check_lengths", {"rollout": {"max_tokens": 64, "max_model_len": 64}}, "rollout.max_tokens", ["64", "no room"]),
    (
        "check_lengths",
        {"model": {"path": None, "scratch": {"max_positions": 32}}, "sft": {}, "rollout": {"max_tokens": 40}},
        "rollout.max_tokens",
        ["40", "32 positions"],
    ),
    (
        "check_cluster_address",
        {"cluster": {"address": "ray://a:10001"}},
        "cluster.address",
        ["'ray://a:10001'", "host:port"],
    ),
    ("check_cluster_address", {"cluster": {"address": "10.0.0.1"}}, "cluster.address", ["'10.0.0.1'", "host:port"]),
    ("check_cluster_address", {"cluster": {"address": "head:99999"}}, "cluster.address", ["host:port"]),
    ("check_cluster_address", {"cluster": {"address": ""}}, "cluster.address", ["''", "local, auto or host:port"]),
    ("check_names", {"algorithm": {"loss": "cliped"}}, "algorithm.loss", ["'cliped'", "did you mean clipped"]),
    ("check_names", {"algorithm": {"advantage": "gae"}}, "algorithm.advantage", ["'gae'", "maxrl"]),
    ("check_prompt_template", {"data": {"template": "{} = ?"}}, "data.template", ["names no column", "{{}}"]),
    ("check_prompt_template", {"data": {"template": 'say {"a": 1}'}}, "data.template", ["names no column", "{{"]),
    ("check_prompt_template", {"data": {"template": "x } y"}}, "data.template", ["write {{ and }}"]),
    ("check_prompt_template", {"data": {"chat_template": [["user", "{0}"]]}}, "data.chat_template", ["{{0}}"]),
    ("check_group", {"rollout": {"group_size": 1}}, "rollout.group_size", ["1", "use 2 or more"]),
    (
        "check_minibatches",
        {"rollout": {"group_size": 2, "prompts_per_step": 1}, "algorithm": {"minibatches": 3}},
        "algorithm.minibatches",
        ["3", "2 completions", "lower it"],
    ),
    (
        "check_filter",
        {"algorithm": {"filter_batches": 3}},
        "algorithm.filter_batches",
        ["3", "algorithm.filter is off", "filter_batches 1"],
    ),
    (
        "check_importance",
        {"rollout": {"logprobs": "never"}},
        "rollout.logprobs",
        ["never", "auto", "bfloat16", "mode off"],
    ),
    (
        "check_offload",
        {"learner": {"zero_stage": 2, "offload_parameters": {"device": "cpu"}}},
        "learner.offload_parameters",
        ["cpu", "zero_stage 3 or higher", "raise the stage"],
    ),
    ("check_torch_learner", {"learner": {"engine": "torch", "zero_stage": 1}}, "learner.engine", ["1", "or deepspeed"]),
    (
        "check_torch_learner",
        {"learner": {"zero_stage": 2}, "tuning": {"method": "subnetwork"}},
        "learner.engine",
        ["2", "engine compact", "use zero_stage 0"],
    ),
    (
        "check_whole_parameters",
        {"learner": {"engine": "deepspeed"}, "optimizer": {"name": "lowrank"}},
        "learner.engine",
        ["deepspeed", "optimizer.name lowrank", "flattens", "use torch"],
    ),
    (
        "check_whole_parameters",
        {
            "learner": {"engine": "deepspeed"},
            "tuning": {"method": "lora_xs", "lora_xs": {"init": "gradient"}},
        },
        "learner.engine",
        ["lora_xs.init gradient", "use torch"],
    ),
    ("check_optimizer", {"optimizer": {"name": "adamm"}}, "optimizer.name", ["'adamm'", "adamw, muon"]),
    (
        "check_optimizer",
        {"optimizer": {"name": "muon"}, "tuning": {"method": "subnetwork"}},
        "optimizer.name",
        ["muon", "vector", "use adamw"],
    ),
    (
        "check_optimizer",
        {"optimizer": {"name": "lowrank"}, "tuning": {"method": "lora"}},
        "optimizer.name",
        ["lowrank", "lora", "use adamw"],
    ),
    ("check_optimizer", {"optimizer": {"lora_plus_ratio": 4}}, "optimizer.lora_plus_ratio", ["4", "remove it"]),
    ("check_optimizer", {"optimizer": {"args": {"amsgrad": True}}}, "optimizer.args", ["amsgrad", "its own settings"]),
    ("check_tuning", {"tuning": {"peft": {"r": 8}}}, "tuning.peft", ["full", "remove it"]),
    (
        "check_tuning",
        {"tuning": {"method": "peft:lora", "peft": {"lora_dropout": 0.1}}},
        "tuning.peft",
        ["dropout", "remove it"],
    ),
    (
        "check_tuning",
        {"tuning": {"method": "peft:miss"}, "learner": {"zero_stage": 3}},
        "learner.zero_stage",
        ["3", "peft:miss", "2 or less"],
    ),
    (
        "check_tuning",
        {"tuning": {"method": "subnetwork", "subnetwork": {"mask": "file"}}},
        "tuning.subnetwork.file",
        ["missing", "give a path"],
    ),
    (
        "check_tuning",
        {"tuning": {"method": "subnetwork", "subnetwork": {"engine": "hook"}}, "optimizer": {"weight_decay": 0.1}},
        "optimizer.weight_decay",
        ["0.1", "masked or not", "use compact"],
    ),
    ("check_sync", {"sync": {"kind": "adapter"}}, "sync.kind", ["adapter", "full", "use auto"]),
    ("check_sync", {"sync": {"kind": "values"}, "tuning": {"method": "lora"}}, "sync.kind", ["values", "no mask"]),
    (
        "check_sync",
        {"sync": {"kind": "diff"}, "rollout": {"tensor_parallel": 2}},
        "sync.kind",
        ["diff", "tensor_parallel 2"],
    ),
    *(
        (
            "check_tuning",
            {"tuning": {"method": "subnetwork", "subnetwork": {"engine": "hook"}}, "optimizer": {"name": name}},
            "optimizer.name",
            [name, "masked", "hook", "use adamw"],
        )
        for name in ("muon", "pytorch_optimizer:lion")
    ),
    ("check_sampling", {"rollout": {"top_p": 0.95}}, "rollout.top_p", ["0.95", "full", "evaluation.sampling.top_p"]),
    ("check_sampling", {"rollout": {"top_k": 50}}, "rollout.top_k", ["50", "remove", "evaluation.sampling.top_k"]),
    ("check_sampling", {"rollout": {"top_k": 0}}, "rollout.top_k", ["0", "remove"]),
    ("check_sampling", {"evaluation": {"sampling": {"top_k": 0}}}, "evaluation.sampling.top_k", ["0", "use -1"]),
    ("check_sampling", {"evaluation": {"sampling": {"top_k": -5}}}, "evaluation.sampling.top_k", ["-5", "use -1"]),
    (
        "check_lengths",
        {"rollout": {"max_tokens": 8, "max_model_len": 64}, "evaluation": {"sampling": {"max_tokens": 64}}},
        "evaluation.sampling.max_tokens",
        ["64", "no room", "lower it"],
    ),
    ("check_evaluation", {"evaluation": {"k": [1, 16]}}, "evaluation.k", ["16", "8", "at least"]),
    ("check_evaluation", {"evaluation": {"every": 5}}, "evaluation.every", ["5", "data.eval", "set 0"]),
    ("check_scoring", {"scoring": {"rewards": []}}, "scoring.rewards", ["empty", "name at least one"]),
    ("check_scoring", {"scoring": {"verifier": None}}, "scoring.verifier", ["outcome", "name a verifier"]),
    ("check_turns", {"scoring": {"rewards": [{"name": "turns"}]}}, "scoring.rewards", ["no environment section"]),
    (
        "check_turns",
        {**TALK, "scoring": {"rewards": [{"name": "ranking"}]}},
        "scoring.rewards",
        ["ranking", "remove environment"],
    ),
    (
        "check_turns",
        {**TALK, "scoring": {"rewards": [{"name": "turns"}, {"name": "outcome"}]}},
        "scoring.rewards",
        ["outcome after turns", "put turns last"],
    ),
    (
        "check_turns",
        {**TALK, "scoring": {"rewards": [{"name": "turns"}]}, "algorithm": {"aggregate": "span"}},
        "algorithm.aggregate",
        ["span", "use token or constant"],
    ),
    (
        "check_turns",
        {**TALK, "data": {"eval": "e.jsonl"}, "evaluation": {"uplift_prompts": 4}},
        "evaluation.uplift_prompts",
        ["4", "set it 0"],
    ),
    ("check_lengths", {**TALK, "rollout": {"max_model_len": 512}}, "environment.max_tokens", ["4096", "no room"]),
    (
        "check_prompt_template",
        {"data": {"template": "{a}", "chat_template": [["user", "{a}"]]}},
        "data.template",
        ["data.chat_template", "keep one"],
    ),
    ("check_kl", {"algorithm": {"kl": {"coef": 0.1, "kind": "k1"}}}, "algorithm.kl.kind", ["k1", "0.1", "zero", "k3"]),
    ("check_clip", {"algorithm": {"delta": 1.2}}, "algorithm.delta", ["1.2", "positive advantages", "more than that"]),
    ("check_clip", {"algorithm": {"loss": "cispo", "delta": 4.0}}, "algorithm.delta", ["4.0", "cispo", "remove it"]),
    (
        "check_clip",
        {"algorithm": {"loss": "dppo_tv", "clip": [0.2, 1.0]}},
        "algorithm.clip",
        ["[0.2, 1.0]", "none reaches 1", "smaller"],
    ),
    ("check_ratio", {"algorithm": {"loss": "dppo_kl", "ratio": "span"}}, "algorithm.ratio", ["span", "use token"]),
    ("check_ratio", {"algorithm": {"loss": "gmpo"}}, "algorithm.ratio", ["token", "gmpo", "use sequence"]),
    (
        "check_ratio",
        {"algorithm": {"recipe": "gmpo", "aggregate": "token"}},
        "algorithm.aggregate",
        ["token", "once per token", "use sequence"],
    ),
    (
        "check_importance_limits",
        {"algorithm": {"importance": {"low": 2.0}}},
        "algorithm.importance.low",
        ["2.0", "cap 2.0", "smaller"],
    ),
    (
        "check_importance_limits",
        {"algorithm": {"importance": {"mode": "mask", "cap": 0.9}}},
        "algorithm.importance.low",
        ["0 to 0.9", "agree", "put 1 between"],
    ),
    (
        "check_importance_limits",
        {"algorithm": {"loss": "dppo_tv", "importance": {"mode": "off"}}},
        "algorithm.importance.mode",
        ["off", "dppo_tv", "use truncate"],
    ),
    (
        "check_importance_limits",
        {"algorithm": {"loss": "dppo_tv", "importance": {"level": "sequence"}}},
        "algorithm.importance.mode",
        ["level sequence", "level token"],
    ),
    (
        "check_advantage",
        {"algorithm": {"advantage": "maxrl"}},
        "algorithm.advantage",
        ["std True", "std false", "recipe maxrl"],
    ),
    (
        "check_advantage",
        {"algorithm": {"advantage": "maxrl", "std": "batch"}},
        "algorithm.advantage",
        ["std batch", "recipe maxrl"],
    ),
    (
        "check_advantage",
        {
            "algorithm": {"advantage": "maxrl", "std": False},
            "scoring": {
                "truncated": "keep",
                "rewards": [{"name": "outcome"}, {"name": "overlong", "max_tokens": 256, "buffer": 64}],
            },
        },
        "algorithm.advantage",
        ["overlong is negative", "remove one"],
    ),
    (
        "check_spans_per_completion",
        {"algorithm": {"spans_per_completion": 20}},
        "algorithm.spans_per_completion",
        ["20", "aggregate token", "use span"],
    ),
    (
        "check_overlong",
        {"scoring": {"truncated": "keep", "rewards": [{"name": "overlong", "max_tokens": 512, "buffer": 64}]}},
        "scoring.rewards",
        ["512", "256", "give that"],
    ),
    (
        "check_overlong",
        {**TALK, "scoring": {"rewards": [{"name": "overlong", "max_tokens": 256, "buffer": 64}]}},
        "scoring.rewards",
        ["overlong", "environment", "remove one"],
    ),
    (
        "check_subgoals",
        {"scoring": {"verifier": "lean.embedded", "rewards": [{"name": "outcome"}, {"name": "subgoals"}]}},
        "scoring.verifier_args.subgoals",
        ["None", "lean.embedded", "subgoals: true"],
    ),
    (
        "check_subgoals",
        {
            "scoring": {
                "verifier": "lean.embedded",
                "verifier_args": {"subgoals": True},
                "rewards": [{"name": "outcome"}, {"name": "subgoals"}],
            },
            "algorithm": {"baseline": "none"},
        },
        "algorithm.baseline",
        ["none", "no blame", "use mean"],
    ),
    (
        "check_subgoals",
        {
            "scoring": {
                "verifier": "lean.embedded",
                "verifier_args": {"subgoals": True},
                "rewards": [{"name": "subgoals"}],
            }
        },
        "scoring.rewards",
        ["nothing by itself", "put outcome before it"],
    ),
    ("check_filter", {"algorithm": {"filter_batches": 3}}, "algorithm.filter_batches", ["3", "off", "set filter"]),
    (
        "check_importance_limits",
        {"model": {"path": "m", "dtype": "float32"}, "algorithm": {"importance": {"low": 0.5}}},
        "algorithm.importance.mode",
        ["auto", "float32", "0.5", "truncate"],
    ),
    (
        "check_importance_limits",
        {"algorithm": {"importance": {"mode": "truncate", "low": 1.5}}},
        "algorithm.importance.low",
        ["1.5 to 2", "change weight 1", "put 1 between"],
    ),
    (
        "check_decoding",
        {"rollout": {"constraint": {"name": "catalog_list"}}, "environment": {"name": "lean.repair"}},
        "rollout.constraint",
        ["'catalog_list'", "'lean.repair'", "one turn", "remove one"],
    ),
    (
        "check_repair",
        {"data": {"repair": {}}, "environment": {"name": "lean.repair"}},
        "data.repair",
        ["'lean.repair'", "several turns", "remove one"],
    ),
    (
        "check_repair",
        {"data": {"repair": {}}, "scoring": {"verifier": None, "rewards": [{"name": "a.py:f"}]}},
        "data.repair",
        ["scoring.verifier is missing", "name one"],
    ),
    (
        "check_repair",
        {"data": {"repair": {"share": 0.05}}},
        "data.repair.share",
        ["0.05", "prompts_per_step 8", "no prompt of the pool"],
    ),
    (
        "check_repair",
        {"data": {"repair": {"share": 0.95}}},
        "data.repair.share",
        ["0.95", "prompts_per_step 8", "no prompt of the data set"],
    ),
    (
        "check_repair",
        {"data": {"repair": {"template": "{messages}", "chat_template": [["user", "{messages}"]]}}},
        "data.repair.template",
        ["both given", "keep one"],
    ),
    ("check_repair", {"data": {"repair": {"template": "{} {messages}"}}}, "data.repair.template", ["names no column"]),
]


def test_the_unbroken_configurations_are_accepted() -> None:
    assert from_dict(GOOD).model.path == "m"
    assert from_dict(changed(SCRATCH)).model.scratch is not None


@pytest.mark.parametrize(("rule", "change", "key", "names"), BROKEN)
def test_a_broken_rule_names_key_value_and_remedy(rule: str, change: dict, key: str, names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(changed(change))
    message = str(caught.value)
    assert message.startswith(f"{key}:")
    assert "\n" not in message
    for name in names:
        assert name in message


def test_every_rule_has_a_case_that_breaks_it() -> None:
    assert {rule for rule, *_ in BROKEN} == {rule.__name__ for rule in checks.ALL}


def test_what_the_rules_allow() -> None:
    one = changed({"rollout": {"group_size": 1}, "algorithm": {"baseline": "none", "std": False}})
    assert from_dict(one).rollout.group_size == 1
    assert from_dict(changed({"rollout": {"logprobs": "never"}, "algorithm": {"importance": {"mode": "off"}}}))
    assert from_dict(changed({"model": {"dtype": "float32"}, "rollout": {"logprobs": "never"}})).importance_cap is None
    assert from_dict(changed({"evaluation": {"k": [4, 8]}})).evaluation.k == (4, 8)
    # k1 without a weight is a name that nothing reads
    assert from_dict(changed({"algorithm": {"kl": {"kind": "k1"}}})).algorithm.kl.coef == 0


@pytest.mark.parametrize(
    "algorithm",
    [
        {"delta": 4.0, "clip": [0.2, 0.28]},
        {"std": "batch"},
        {"std": "batch", "baseline": "leave_one_out", "focal_gamma": 0.5},
        {"recipe": "rank_grpo", "spans_per_completion": 20},
        {"loss": "gmpo", "ratio": "span", "aggregate": "span", "clip": [0.4, 0.4]},
        {"recipe": "cispo", "ratio": "sequence", "importance": {"mode": "mask", "level": "sequence", "cap": 3.0}},
        {"importance": {"mode": "mask", "low": 0.5, "cap": 5.0}},
        {"recipe": "dppo", "loss": "dppo_kl", "clip": [0.05, 0.05]},
        {"recipe": "maxrl", "aggregate": "sequence", "focal_gamma": 1.0},
    ],
    ids=str,
)
def test_members_of_the_family_combine_where_that_means_something(algorithm: dict[str, Any]) -> None:
    for dtype in ("float32", "bfloat16"):
        config = from_dict(changed({"algorithm": algorithm, "model": {"dtype": dtype}}))
        loss = build_loss(config)
        try_loss(loss, example_inputs(loss.settings))
        build_advantage(config)


def test_dppo_asks_the_engines_for_log_probabilities_in_any_dtype() -> None:
    for dtype in ("float32", "bfloat16"):
        config = from_dict(changed({"algorithm": {"loss": "dppo_tv"}, "model": {"dtype": dtype}}))
        assert config.importance_cap == 2.0
        assert config.wants_logprobs(3)
        assert from_dict(changed({"algorithm": {"recipe": "dppo"}, "model": {"dtype": dtype}})).importance_cap == 20.0


def test_std_is_read_as_before_and_batch_is_the_third_value() -> None:
    for given, expected in ((True, True), (False, False), ("batch", False)):
        config = from_dict(changed({"algorithm": {"std": given}}))
        assert config.algorithm.std == given
        assert advantage_settings(config).std is expected


@pytest.mark.parametrize(
    ("change", "key"),
    [
        # the run takes evaluation.k[0] to find its best checkpoint
        ({"evaluation": {"k": []}}, "evaluation.k"),
        # the empty string occurs at the start of every text: all completions would be cut to nothing
        ({"rollout": {"stop": [""]}}, "rollout.stop"),
        # torch's AdamW refuses a decay of 1, in an actor, with a traceback
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas"),
        # the run folder would be the folder above output_dir
        ({"run": {"name": ".."}}, "run.name"),
    ],
)
def test_values_that_cannot_work_are_refused_at_the_start(change: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        from_dict(changed(change))
