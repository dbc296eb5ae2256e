"""Dialogues in a real run: environments in actors, which are killed, fail, hang and crash. The guessing game's own figures
are in configs/README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support.processes import Command
from support.tiny_run import lines, prepare, weights

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]
TALK = Path(__file__).resolve().parents[1] / "support" / "dialogues.py"


def environment(**arguments: Any) -> dict[str, Any]:
    options = {key: arguments.pop(key) for key in ("workers", "timeout_s") if key in arguments}
    return {"name": f"{TALK}:Talk", "args": arguments, "max_turns": 3, "observation_tokens": 4, **options}


@pytest.fixture(scope="module")
def work(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(
        tmp_path_factory.mktemp("environments"), tiny_model, {"name": "whole", "steps": 8, "checkpoint_every": 3},
        "names_a_hypothesis", scoring={"rewards": [{"name": "turns"}], "truncated": "keep"},
        environment=environment(seconds=0.01, workers=2),
        rollout={"group_size": 4, "prompts_per_step": 4, "max_tokens": 12, "kv_cache_mb": 64, "stop": [" p", " q"]},
    )  # fmt: skip


def transcript(work: Path, name: str, step: int) -> list[dict]:
    file = work / "runs" / name / "transcripts" / f"step_{step:06d}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(work: Path) -> dict[str, torch.Tensor]:
    status, _, err = Command(["train", "config.yaml", "run.name=whole"], work).start().finish()
    assert status == 0, err
    return weights(work, "whole")


def test_transcripts_show_turns_and_rewards_of_turns(work: Path, whole: dict[str, torch.Tensor]) -> None:
    rows = transcript(work, "whole", 0)
    assert len(rows) == 16
    several = [row for row in rows if len(row["versions"]) > 1]
    assert several, "no trajectory of an untrained model reached a second turn; choose another seed"
    for row in rows:
        turns = [s for s in row["segments"] if s["origin"] == "policy"]
        assert [[0, s["start"], s["stop"]] for s in turns if s["start"] < s["stop"]] == row["versions"]
        assert len(row["logprobs"]) == row["tokens"] == sum(s["stop"] - s["start"] for s in turns)
        if row["reward"] is not None:
            paid = {index: value for *_, value, index, _ in row["reward"]}
            expected = 0.0
            for number, turn in reversed(list(enumerate(turns))):
                expected += turn["reward"] or 0.0
                assert paid[number] == pytest.approx(expected)


def test_one_loss_of_each_kind_with_trajectories_in_flight_changes_nothing(
    work: Path, whole: dict[str, torch.Tensor]
) -> None:
    running = Command(["train", "config.yaml", "run.name=each", "scoring.workers=2", "rollout.workers=2"], work).start()
    for after, actor in ((1, "EnvironmentWorker"), (2, "RolloutWorker"), (3, "ScoringWorker"), (5, "LearnerWorker")):
        running.until(lambda least=after: len(lines(work, "each")) >= least)
        running.actor(actor).kill()
    status, out, err = running.finish()
    assert status == 0, err
    assert "environment" in out
    found = weights(work, "each")
    assert all(torch.allclose(found[key], value, atol=1e-5) for key, value in whole.items())
    last = lines(work, "each")[-1]
    assert [last[f"recoveries/{kind}"] for kind in ("environment", "rollout", "scoring", "learner")] == [1, 1, 1, 1]
    # the texts are those of the undisturbed run, also where an environment was played to again
    for step in range(8):
        assert [row["completion"] for row in transcript(work, "each", step)] == [
            row["completion"] for row in transcript(work, "whole", step)
        ]


@pytest.mark.parametrize(
    ("trouble", "said", "overrides"),
    [
        ("raise", "ZeroDivisionError", []),
        pytest.param("crash", "ended its process 2 times", ["cluster.restarts=99"], marks=pytest.mark.long),
        pytest.param("hang", "did not answer within", ["cluster.restarts=99"], marks=pytest.mark.long),
    ],
)
def test_an_environment_in_trouble_leaves_only_its_trajectories_undecided(
    work: Path, trouble: str, said: str, overrides: list[str]
) -> None:
    arguments = f"environment={json.dumps(environment(trouble=trouble, timeout_s=2))}"
    command = Command(
        ["train", "config.yaml", f"run.name={trouble}", "run.steps=2", "selfcheck.plugins=false", arguments,
         "scoring.max_undecided_share=1.0", *overrides],
        work,
    )  # fmt: skip
    status, _, err = command.start().finish()
    assert status == 0, err
    rows = [row for step in range(2) for row in transcript(work, trouble, step)]
    undecided = [row for row in rows if row["outcome"] == "undecided"]
    assert undecided
    for row in undecided:
        assert (row["prompt_id"], row["reward"], row["status"]) == ("t0", None, "aborted")
        assert said in row["evidence"]["messages"][0]
    assert any(row["reward"] is not None for row in rows)


def test_an_environment_that_answers_differently_each_time_is_refused_before_the_start(work: Path) -> None:
    (work / "fickle.py").write_text(
        "import random\nfrom rlpost.protocols import Reply\n\n"
        "class Fickle:\n"
        "    def begin(self, row, seed): return str(random.random())\n"
        "    def reply(self, turn): return Reply(done=True)\n"
        "    def close(self): pass\n"
    )
    command = Command(
        [
            "train",
            "config.yaml",
            "run.name=fickle",
            "environment={name: 'fickle.py:Fickle', max_turns: 3, observation_tokens: 4}",
        ],
        work,
    )
    status, _, err = command.start().finish()
    assert status == 2
    assert "environment.name 'fickle.py:Fickle', tried on prompt" in err
    assert "answered the turns" in err
