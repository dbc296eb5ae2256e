"""``kill -9`` of each kind of actor during a run, and actors that hang: a finished run or a clean stop, and no process
left behind.

The first tests put several losses into one run. ``pytest -m long -s tests/ray/test_supervision.py`` runs each case by
itself and prints a line of JSON with its seconds to recovery. Not covered: GPUs, machines that go away
(tests/ray/test_nodes.py has nodes of one machine).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from support.processes import Command
from support.tiny_run import lines, prepare, weights

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def work(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = {"name": "whole", "steps": 10, "checkpoint_every": 4}
    return prepare(tmp_path_factory.mktemp("supervision"), tiny_model, run, "takes_its_time")


def command(work: Path, name: str, *overrides: str) -> Command:
    return Command(["train", "config.yaml", f"run.name={name}", *overrides], work).start()


def tell(case: str, out: str) -> None:
    seconds = [float(found) for found in re.findall(r"replaced in ([0-9.]+) s", out)]
    print(json.dumps({"case": case, "seconds_to_recovery": seconds}))


@pytest.fixture(scope="module")
def whole(work: Path) -> dict[str, torch.Tensor]:
    status, _, err = command(work, "whole").finish()
    assert status == 0, err
    return weights(work, "whole")


def ends_as_if_nothing_had_happened(work: Path, name: str, whole: dict[str, torch.Tensor]) -> None:
    """The same prompts, seeds and weights: lost work was repeated, and nothing was done twice."""
    assert [row["step"] for row in lines(work, name)] == list(range(10))
    assert [row["policy_version"] for row in lines(work, name)] == list(range(1, 11))
    found = weights(work, name)
    assert all(torch.allclose(found[key], value, atol=1e-5) for key, value in whole.items())


def test_one_loss_of_each_kind_in_one_run(work: Path, whole: dict[str, torch.Tensor]) -> None:
    """Engines receive differences only: a new engine has missed the earlier ones and is sent the whole model."""
    running = command(work, "each", "rollout.workers=2", "scoring.workers=2", "sync.kind=diff")
    for after, actor in ((2, "RolloutWorker"), (4, "ScoringWorker"), (6, "LearnerWorker")):
        running.until(lambda least=after: len(lines(work, "each")) >= least)
        running.actor(actor).kill()
    status, out, err = running.finish()
    assert status == 0, err
    tell("one of each kind", out)
    assert out.count("replaced in") == 3
    # the last checkpoint: of step 4, or of step 8 if the loss came late
    assert re.search(r"going on after step [48]\b", out)
    ends_as_if_nothing_had_happened(work, "each", whole)
    assert lines(work, "each")[-1]["recoveries/rollout"] == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "actor", "after", "overrides"),
    [
        ("engine", "RolloutWorker", 3, []),
        ("one engine of two", "RolloutWorker", 3, ["rollout.workers=2"]),
        ("scoring worker", "ScoringWorker", 3, []),
        ("one scoring worker of two", "ScoringWorker", 3, ["scoring.workers=2"]),
        ("learner before a checkpoint", "LearnerWorker", 2, []),
        ("learner after a checkpoint", "LearnerWorker", 6, []),
    ],
)
def test_a_run_that_lost_an_actor_ends_as_if_it_had_not(
    work: Path, whole: dict[str, torch.Tensor], case: str, actor: str, after: int, overrides: list[str]
) -> None:
    name = case.replace(" ", "_")
    running = command(work, name, *overrides)
    running.until(lambda: len(lines(work, name)) >= after)
    running.actor(actor).kill()
    status, out, err = running.finish()
    assert status == 0, err
    tell(case, out)
    assert "replaced in" in out
    ends_as_if_nothing_had_happened(work, name, whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("actor", "deadlines"),
    [
        ("ScoringWorker", ["scoring.batch_timeout_s=5"]),
        ("RolloutWorker", ["rollout.timeout_s=5", "sync.timeout_s=10"]),
        ("LearnerWorker", ["learner.timeout_s=10"]),
    ],
)
def test_an_actor_that_hangs_is_replaced_after_its_deadline(
    work: Path, whole: dict[str, torch.Tensor], actor: str, deadlines: list[str]
) -> None:
    name = f"hung_{actor}"
    running = command(work, name, *deadlines)
    running.until(lambda: len(lines(work, name)) >= 3)
    running.actor(actor).suspend()
    status, out, err = running.finish()
    assert status == 0, err
    tell(f"{actor} stopped with SIGSTOP", out)
    assert re.search(r"no answer within|not finished within", out), out
    assert "replaced in" in out
    ends_as_if_nothing_had_happened(work, name, whole)


@pytest.mark.long
def test_a_lost_rank_restarts_the_group_from_the_start_where_there_is_no_checkpoint(
    work: Path, whole: dict[str, torch.Tensor]
) -> None:
    running = command(work, "rank", "learner.workers=2", "learner.zero_stage=1", "run.checkpoint_every=0")
    running.until(lambda: len(lines(work, "rank")) >= 3)
    running.actors("LearnerWorker")[1].kill()
    status, out, err = running.finish()
    assert status == 0, err
    tell("one learner rank of two, no checkpoint", out)
    assert "going on after step 0" in out
    ends_as_if_nothing_had_happened(work, "rank", whole)


@pytest.mark.parametrize(
    "actor",
    ["RolloutWorker", *(pytest.param(name, marks=pytest.mark.long) for name in ("ScoringWorker", "LearnerWorker"))],
)
def test_the_third_loss_of_a_kind_ends_the_run_in_one_line(work: Path, actor: str) -> None:
    name = f"third_{actor}"
    running = command(work, name, "run.steps=500")
    gone: set[int] = set()
    for _ in range(3):
        running.until(lambda: len(lines(work, name)) >= 2)
        running.until(lambda: any(p.pid not in gone for p in running.actors(actor)))
        victim = next(p for p in running.actors(actor) if p.pid not in gone)
        victim.kill()
        gone.add(victim.pid)
    status, out, err = running.finish(timeout_s=90)
    assert status == 1
    said = [line for line in err.splitlines() if line.startswith("rlpost: ")]
    assert len(said) == 1, err
    assert "loss number 3 in this run, 2 are made good (cluster.restarts)" in said[0]
    tell(f"third loss of {actor}", out)
    if actor != "LearnerWorker":
        last = max((work / "runs" / name / "checkpoints").iterdir()).name
        assert last == f"step_{len(lines(work, name)):06d}"


@pytest.mark.long
@pytest.mark.parametrize("method", ["subnetwork", "lora"])
def test_a_new_engine_is_told_positions_and_the_last_adapter(work: Path, method: str) -> None:
    status, _, err = command(work, f"{method}_whole", f"tuning.method={method}").finish()
    assert status == 0, err
    running = command(work, method, f"tuning.method={method}", "rollout.workers=2")
    running.until(lambda: len(lines(work, method)) >= 4)
    running.actor("RolloutWorker").kill()
    running.until(lambda: len(lines(work, method)) >= 7)
    running.actor("LearnerWorker").kill()
    status, out, err = running.finish()
    assert status == 0, err
    assert out.count("replaced in") == 2
    ends_as_if_nothing_had_happened(work, method, weights(work, f"{method}_whole"))
