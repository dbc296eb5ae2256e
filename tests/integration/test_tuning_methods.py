"""Every tuning method and kind of update with a real vLLM engine: after an update, learner and engine are one policy.

One process runs the engine with adapters, one that without (`tests/support/tuning_checks.py`); the tests read their
findings. Not covered: GPU, and bfloat16 beyond the one case with float32 masters.
"""

from __future__ import annotations

import json

import pytest

from support.engine_script import run_engine_script
from support.tuning_checks import ADAPTERS, METHODS

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

BFLOAT16 = "full_bf16_masters"


@pytest.fixture(scope="module")
def found(tiny_model: str) -> dict:
    kinds = {
        kind: run_engine_script("tuning_checks.py", tiny_model, kind) for kind in ("plain", "adapters", "bfloat16")
    }
    parsed = {kind: json.loads(output.strip().splitlines()[-1]) for kind, output in kinds.items()}
    planted = {**parsed["plain"].pop("planted"), **parsed["adapters"].pop("planted")}
    return {**parsed["plain"], **parsed["adapters"], **parsed["bfloat16"], "planted": planted}


@pytest.mark.parametrize("name", [*METHODS, *ADAPTERS])
def test_engine_and_learner_are_one_policy_before_and_after_updates(found: dict, name: str) -> None:
    one, tolerance = found[name], 0.05 if name == BFLOAT16 else 1e-4
    assert one["start"] <= tolerance
    assert one["after"] <= tolerance
    assert one["moved"] > 0.01
    # the reference policy must not move, however the method keeps it
    assert one["reference"] <= (0.05 if name == BFLOAT16 else 1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("subnetwork")])
def test_only_the_kept_entries_change(found: dict, name: str) -> None:
    assert 0.09 < found[name]["changed"] <= 0.1001


def test_each_method_sends_its_kind_of_update_at_the_expected_size(found: dict) -> None:
    whole = found["full"]["bytes"]
    assert {
        name: found[name]["kind"] for name in ("full", "subnetwork", "subnetwork_hook", "lora", "lora_xs", "miss")
    } == {
        "full": "full",
        "subnetwork": "values",
        "subnetwork_hook": "values",
        "lora": "adapter",
        "lora_xs": "adapter",
        "miss": "full",
    }
    assert found["subnetwork"]["bytes"] <= 0.1002 * whole
    # every changed entry is sent as position and value
    assert found["subnetwork_diff"]["bytes"] == 2 * found["subnetwork"]["bytes"]
    assert found["planted"]["difference_bytes"] == "8"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("adapter_not_sent", "holds other bytes than published for 'model.layers.0.self_attn.q_proj.lora_B.weight'"),
        ("adapter_not_used", "engine 0 and learner differ"),
        ("adapter_while_requests_run", "an adapter was published while requests run"),
        ("wrong_base", "holds other bytes than published for 'model.layers.0.self_attn.o_proj.weight'"),
        ("values_without_positions", "the declaration was never received"),
        ("wrong_positions", "holds other bytes than published"),
        ("wrong_base_of_a_difference", "holds other bytes than published for 'model.norm.weight' (1 of 20 tensors)"),
        ("stale_cache", "engine 0 and learner differ"),
        ("stale_kernels", "engine 0 and learner differ"),
    ],
)
def test_planted_failures_are_found(found: dict, failure: str, said: str) -> None:
    assert said in found["planted"][failure]


def test_a_healthy_sync_passes_the_canary(found: dict) -> None:
    assert found["planted"]["sent"] == found["planted"]["after_a_snapshot"] == "healthy"
