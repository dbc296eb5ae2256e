"""The real vLLM engine on a tiny model: parity with the learner, updates in place, and traps that are planted.

One process loads the engine once and does everything (`tests/support/engine_checks.py`); the tests read its findings.
Not covered: GPU, tensor parallelism, other architectures than Llama.
"""

from __future__ import annotations

import json

import pytest

from support.cpu_env import run_engine_script

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def found(tiny_model: str) -> dict:
    return json.loads(run_engine_script("engine_checks.py", tiny_model).strip().splitlines()[-1])


def test_completions_come_in_request_order_with_consecutive_seeds(found: dict) -> None:
    expected = [["a", i, 100 + i] for i in range(4)] + [["b", i, 900 + i] for i in range(2)]
    assert found["order"] == expected


def test_members_of_a_group_differ_and_the_same_seeds_repeat_them(found: dict) -> None:
    assert found["distinct"] == 4
    assert found["repeat"]


def test_log_probabilities_agree_with_the_learner_at_any_temperature(found: dict) -> None:
    assert found["parity"]["1.0"] < 1e-4
    assert found["parity"]["0.6"] < 1e-4
    assert found["probe"] == "healthy"


def test_an_update_arrives_in_every_tensor(found: dict) -> None:
    assert found["nothing_changed"] == 0
    assert found["changed"] == found["tensors"] > 10
    assert found["arrived"]
    assert found["after_update"] == "healthy"


def test_what_is_unfinished_at_the_deadline_is_aborted_and_holds_no_tokens(found: dict) -> None:
    assert found["aborted"] == [["abort", []], ["abort", []]]


def test_stop_strings_are_cut_from_the_text(found: dict) -> None:
    assert found["stopped"] > 0
    assert found["stop_in_text"] == 0


def test_prompts_beyond_the_engines_token_budget_are_served(found: dict) -> None:
    assert len(found["long_batch"]) == 64
    assert set(found["long_batch"]) <= {"stop", "length"}


def test_a_stale_prefix_cache_is_caught_by_the_probe(found: dict) -> None:
    assert "stale prefix cache" in found["stale_cache"]
    assert found["cache_dropped"] == "healthy"


def test_a_stale_packed_lm_head_is_invisible_to_checksums_and_caught_by_the_probe(found: dict) -> None:
    assert found["packed_before"] == "healthy"
    assert found["stale_head_checksums"]
    assert "engine computes with other weights" in found["stale_head"]
