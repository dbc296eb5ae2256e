"""The recommender's recipe at a small scale, as a user runs it: warm start, Rank-GRPO off-policy, figures of lists, and
a chat with the model. Not covered: whether it improves, which scripts/experiments/rank_grpo.py measures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]

RECIPE = str(Path(__file__).resolve().parents[2] / "configs" / "recommender_rank_cpu.yaml")
SMALL = [
    *("run.name=films", "run.steps=2", "model.scratch.layers=1", "sft.train.count=300", "sft.epochs=2"),
    *("sft.batch_size=16", "data.train.count=40", "data.eval.count=12", "rollout.prompts_per_step=4"),
    *("rollout.kv_cache_mb=64", "algorithm.epochs=2", "logging.progress=false", "logging.transcripts_every=1"),
]


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_recommender_recipe_from_warm_start_to_chat(tmp_path: Path) -> None:
    status, _, err = Command(["train", RECIPE, *SMALL], tmp_path).start().finish()
    assert status == 0, err
    folder = tmp_path / "runs" / "films"

    *simple, before, after = rows(folder / "evaluations.jsonl")
    titles = ["baseline popularity", "baseline asked attribute", "baseline item kNN", "baseline naive Bayes"]
    assert [row["when"] for row in simple] == [*titles, "baseline teacher"]
    assert all({"ndcg@10", "recall@10_low", "exact_length"} <= set(row) for row in simple)
    best = max(row["ndcg@10"] for row in simple)
    assert before["ndcg@10 lead"] == pytest.approx(before["ndcg@10"] - best)
    assert "baseline naive Bayes" in (folder / "report.html").read_text()
    assert {"ndcg_at_k.svg", "hits_by_rank.svg"} <= {file.name for file in (folder / "plots").iterdir()}
    figures = {"recall@5", "ndcg@10", "ndcg@10_se", "ndcg@10 released", "in_catalog", "duplicates", "places", "novelty"}
    assert figures <= set(before)
    assert "popularity_shift" not in before
    assert {"popularity_shift", "popularity_shift_se"} <= set(after)

    steps = rows(folder / "metrics.jsonl")
    assert {"clip_frac/high/epoch_0", "clip_frac/high/epoch_1", "kl"} <= set(steps[-1])
    for row in (one for file in sorted((folder / "transcripts").iterdir()) for one in rows(file)):
        ranks = [span for span in row["reward"] if span[3] >= 0 and span[4] == "reward"]
        assert [span[3] for span in ranks] == list(range(10)), "a span for each rank, whatever the list's length"
        assert {span[2] for span in ranks} <= {-0.5, 0.0, 1.0}, "a hit, a miss, a film named twice or seen"
        borders = [place for span in ranks for place in span[:2]]
        assert borders == sorted(borders)
        assert sum(span[2] for span in ranks) <= 3

    talk = ["chat", RECIPE, *SMALL, "--model", str(folder / "model"), "--text", "I loved Alien (1979).", "--json"]
    status, out, err = Command(talk, tmp_path).start().finish()
    assert status == 0, err
    reply = json.loads(out)
    known = {"in_catalog", "seen", "duplicate", "out_of_catalog", "unparsable"}
    assert {item["reason"] for item in reply["verdict"]["items"]} <= known
    assert reply["text"]


def test_the_constrained_recipe_writes_valid_lists_only(tmp_path: Path) -> None:
    """Training, evaluations and chat, from a warm start that has hardly learned the form of a list."""
    recipe = RECIPE.replace("rank_cpu", "constrained_cpu")
    small = [*SMALL, "sft.epochs=1"]
    status, _, err = Command(["train", recipe, *small], tmp_path).start().finish()
    assert status == 0, err
    folder = tmp_path / "runs" / "films"
    for row in rows(folder / "evaluations.jsonl"):
        if not row["when"].startswith("baseline"):
            assert (row["exact_length"], row["in_catalog"], row["duplicates"]) == (1.0, 1.0, 0.0)
    assert rows(folder / "metrics.jsonl")[0]["mismatch"] < 1e-5
    talk = ["chat", recipe, *small, "--model", str(folder / "model"), "--text", "I loved Alien (1979).", "--json"]
    status, out, err = Command(talk, tmp_path).start().finish()
    assert status == 0, err
    reasons = [item["reason"] for item in json.loads(out)["verdict"]["items"]]
    assert len(reasons) == 10
    assert set(reasons) <= {"in_catalog", "seen"}
    # a limit that could cut a list is refused before the warm start
    short = ["train", recipe, *small, "rollout.max_tokens=10", "run.name=short"]
    status, _, err = Command(short, tmp_path).start().finish()
    assert status == 2
    assert "rollout.max_tokens: 10 would cut the longest answer that rollout.constraint allows" in err
