"""vLLM samples under a constraint what the learner scores under it, token by token."""

from __future__ import annotations

import json

import pytest

from rlpost.config.schema import ScratchModel
from rlpost.data import bpe
from rlpost.data.models import build_scratch
from rlpost_verifiers.catalog.items import load_catalog
from support.engine_script import run_engine_script
from support.local_run import peaked

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LARGEST = {"float32": 1e-5, "bfloat16": 0.05}
"""Mean |Δ log p| in nats of a model of this size with equal weights."""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("films")
    names = [item.name for item in load_catalog(None).head(12).items]
    size = bpe.build([f"{name}\n" for name in names] * 3, folder / "plain", 256, 384)
    scratch = ScratchModel(hidden_size=64, heads=2, layers=2, max_positions=256)
    build_scratch(scratch, size, folder / "plain", seed=1)
    return peaked(str(folder / "plain"), folder / "peaked")


@pytest.mark.parametrize(("dtype", "shards"), [("float32", 1), ("bfloat16", 1), ("float32", 2)])
def test_every_answer_is_valid_and_its_log_probabilities_are_the_learners(films: str, dtype: str, shards: int) -> None:
    found = json.loads(run_engine_script("constrained_engine.py", films, dtype, str(shards)).splitlines()[-1])
    for temperature in ("1.0", "0.7"):
        drawn = found[temperature]
        assert drawn["invalid"] == drawn["again"] == 0
        assert drawn["distinct"] > 30
        assert drawn["apart"][0] < LARGEST[dtype]
    mixed = found["mixed"]
    assert (mixed["invalid"], mixed["count"], mixed["free count"]) == (0, 12, 6)
    assert mixed["free invalid"] == 6, "a request that does not ask for the constraint is not under it"
    assert max(mixed["apart"], mixed["free apart"]) < LARGEST[dtype]
    assert found["probe is free"]
    assert found["greedy invalid"] == found["nucleus invalid"] == 0
    assert found["greedy apart"] < LARGEST[dtype]
