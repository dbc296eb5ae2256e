"""``rlpost evaluate --robustness`` with a real engine, on a model that was hardly trained: that lists before and after are
asked for and compared. Not covered: how robust a trained policy is.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = str(ROOT / "configs" / "examples" / "described_films.yaml")
SMALL = [
    *("model.scratch.layers=2", "model.scratch.hidden_size=64", "model.scratch.heads=2", "sft.train.count=400"),
    *("sft.epochs=3", "data.eval.count=16", "rollout.kv_cache_mb=64"),
    f"data.source={ROOT / 'configs' / 'examples' / 'described_films.py'}:rows",
]


def test_attacks_on_descriptions_from_warm_start_to_table(tmp_path: Path) -> None:
    status, _, err = Command(["sft", EXAMPLE, *SMALL, "--output", "model", "--quiet"], tmp_path).start().finish()
    assert status == 0, err
    given = [
        "evaluate",
        EXAMPLE,
        *SMALL,
        "--model",
        "model",
        "--robustness",
        "sts",
        "--output",
        "trials.jsonl",
        "--json",
    ]
    few = [part for one in ("targets=2", "prompts=4", "queries=4", "at_once=2") for part in ("--set", one)]
    status, out, err = Command([*given, *few], tmp_path).start().finish()
    assert status == 0, err
    found = json.loads(out)
    assert len(found["targets"]) == 2
    assert found["described"] == 16
    assert len(found["attacks"]) == 8 * 5
    assert {row["defence"] for row in found["quality"]} == {"none", "delimit", "strip", "truncate", "perplexity"}
    assert all(row["lost"] == 0 and 0 <= row["listed before"] <= 1 for row in found["attacks"])
    assert all(len(text.split()) == 12 for text in found["searched"].values())
    trials = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert len(trials) == sum(found["targets"].values()) * 8 * 5
    # equal prompts are asked once: attacks, defences and sequences make others of them
    assert found["lists"] > 100


def test_conversations_without_candidates_are_one_line(tmp_path: Path) -> None:
    recipe = str(ROOT / "configs" / "recommender_rank_cpu.yaml")
    small = [
        "model.scratch.layers=2",
        "sft.train.count=200",
        "sft.epochs=1",
        "data.eval.count=8",
        "rollout.kv_cache_mb=64",
    ]
    status, _, err = Command(["sft", recipe, *small, "--output", "model", "--quiet"], tmp_path).start().finish()
    assert status == 0, err
    status, out, err = (
        Command(["evaluate", recipe, *small, "--model", "model", "--robustness", "sts"], tmp_path).start().finish()
    )
    assert (status, out) == (2, "")
    assert "rlpost: robustness: none of 8 prompts describes an item that could be recommended" in err
