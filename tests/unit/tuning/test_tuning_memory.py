"""Predicted bytes against those of real learners after a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlpost.data.models import tensor_shapes, widths
from rlpost.errors import DataError
from rlpost.learner.build import build_learner
from rlpost.tuning.memory import activations, engine_bytes, learner_bytes
from support.tuning_checks import batch, configured

CASES: list[dict[str, Any]] = [
    {},
    {"optimizer": {"name": "muon"}},
    *(
        {"optimizer": {"name": "lowrank", "lowrank": {"preset": p, "rank": 8}}}
        for p in ("galore", "fira", "frugal", "apollo")
    ),
    {"tuning": {"method": "lora"}},
    {"tuning": {"method": "lora", "lora": {"freeze_a": True, "r": 4, "targets": ["q_proj", "up_proj"]}}},
    {"tuning": {"method": "lora_xs"}},
    {"tuning": {"method": "subnetwork", "subnetwork": {"mask": "random", "density": 0.2}}},
    {"tuning": {"method": "subnetwork", "subnetwork": {"mask": "magnitude", "targets": "all-linear"}}},
    {"tuning": {"method": "subnetwork", "subnetwork": {"mask": "random", "engine": "hook"}}},
    {
        "tuning": {
            "method": "subnetwork",
            "subnetwork": {"mask": "random", "engine": "hook", "targets": ["q_proj", "norm"]},
        }
    },
]
CASES += [{**case, "model": {"dtype": "bfloat16"}} for case in CASES]


@pytest.mark.parametrize("change", CASES, ids=lambda c: "-".join(str(v) for s in c.values() for v in s.values())[:60])
def test_weights_and_optimizer_state_are_predicted_to_the_byte(tiny_model: str, change: dict[str, Any]) -> None:
    config = configured(tiny_model, change)
    found = build_learner(config, tiny_model, torch.device("cpu")).step(batch(0))
    assert found["memory_mb/optimizer"] == found["memory_mb/optimizer_planned"] > 0
    assert found["memory_mb/weights"] == found["memory_mb/weights_planned"] > 0


def test_a_compact_subnetwork_takes_twenty_bytes_for_each_kept_entry(tiny_model: str) -> None:
    shapes = tensor_shapes(tiny_model)
    assert shapes is not None
    size = sum(torch.Size(s).numel() for s in shapes.values())
    change = {
        "tuning": {"method": "subnetwork", "subnetwork": {"mask": "random", "density": 0.05}},
        "algorithm": {"kl": {"coef": 0}},
    }
    found = learner_bytes(configured(tiny_model, {**change, "model": {"dtype": "bfloat16"}}), shapes)
    assert sum(found.values()) == pytest.approx((2 + 20 * 0.05) * size, rel=1e-3)


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        ({"method": "full"}, True),
        ({"method": "lora"}, False),
        ({"method": "lora", "lora": {"init": "pissa"}}, True),
        ({"method": "lora_xs"}, False),
        ({"method": "peft:miss", "peft": {"r": 4}}, False),
        ({"method": "peft:osf"}, False),
        ({"method": "peft:lora", "peft": {"init_lora_weights": "olora"}}, True),
        ({"method": "subnetwork", "subnetwork": {"mask": "random"}}, False),
        ({"method": "subnetwork", "subnetwork": {"mask": "random", "engine": "hook"}}, True),
    ],
    ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else None,
)
def test_a_reference_model_is_planned_where_one_is_held(tiny_model: str, tuning: dict, expected: bool) -> None:
    config, shapes = configured(tiny_model, {"tuning": tuning}), tensor_shapes(tiny_model)
    assert shapes is not None
    learner = build_learner(config, tiny_model, torch.device("cpu"))
    planned = learner_bytes(config, shapes)["reference"]
    held = learner.passes.reference.parameters() if learner.passes.reference is not None else []
    assert planned == sum(p.numel() * p.element_size() for p in held)
    assert bool(planned) == expected


def test_the_head_that_is_tied_counts_once(tiny_model: str) -> None:
    shapes = tensor_shapes(tiny_model)
    assert shapes is not None
    assert "lm_head.weight" not in shapes


def test_a_model_file_that_is_cut_short_is_named(tiny_model: str, tmp_path: Path) -> None:
    for file in Path(tiny_model).glob("*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"cut short, '.*' ends beyond its \d+ bytes; copy it again"):
        tensor_shapes(tmp_path)


def test_engines_hold_packed_copies_and_adapters(tiny_model: str) -> None:
    shapes = tensor_shapes(tiny_model)
    assert shapes is not None
    config = configured(tiny_model, {"tuning": {"method": "lora"}, "rollout": {"max_tokens": 16, "kv_cache_mb": 64}})
    found = engine_bytes(config, shapes, on_gpu=False)
    assert found["cache"] == 64 << 20
    assert found["packed"] < found["weights"]
    linear = [s for n, s in shapes.items() if len(s) == 2 and "embed" not in n]
    assert found["adapters"] == 2 * 16 * 4 * sum(map(sum, linear))
    assert engine_bytes(config, shapes, on_gpu=True) | {"packed": 1} == {**found, "packed": 1, "cache": 0}


def test_engines_hold_the_positions_of_values_and_of_nothing_else(tiny_model: str) -> None:
    shapes = tensor_shapes(tiny_model)
    assert shapes is not None
    tuning = {"method": "subnetwork", "subnetwork": {"mask": "random", "density": 0.1}}
    config = configured(tiny_model, {"tuning": tuning})
    chosen: Any = build_learner(config, tiny_model, torch.device("cpu")).engine.tuning
    kept = sum(len(index) for index, _ in chosen.values().values())
    assert engine_bytes(config, shapes, on_gpu=False)["positions"] == 8 * kept
    whole = configured(tiny_model, {"tuning": tuning, "sync": {"kind": "full"}})
    assert engine_bytes(whole, shapes, on_gpu=False)["positions"] == 0


def test_checkpointing_keeps_fewer_activations(tiny_model: str) -> None:
    config = configured(tiny_model, {})
    less = configured(tiny_model, {"learner": {"micro_tokens": 40, "gradient_checkpointing": True}})
    assert activations(less, widths(tiny_model)) < activations(config, widths(tiny_model))
