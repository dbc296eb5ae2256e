"""Silent bugs, planted one by one into a real run: each ends the run, with the reason and the remedy.

    pytest -m '' -s tests/ray/test_planted_failures.py

prints the last line of each run. The bugs are in support/sabotage; an undecided verifier and a reward that leaks memory
are plug-ins. Verifiers that accept what is false are in tests/contract/test_lean_cheats.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.processes import Command
from support.tiny_run import JUDGE, prepare

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]
LONG = pytest.mark.long
"""For bugs that are also planted between a learner and an engine in tests/integration, or are like another one here."""
SUPPORT = Path(__file__).resolve().parents[1] / "support"
TALK = [f"environment={{name: '{SUPPORT}/dialogues.py:Talk', max_turns: 3, observation_tokens: 4}}"]


@pytest.fixture(scope="module")
def work(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = {"name": "planted", "steps": 3}
    return prepare(tmp_path_factory.mktemp("planted"), tiny_model, run, "names_a_hypothesis", optimizer={"lr": 1e-2})


def said(work: Path, name: str, sabotage: str | None, *overrides: str) -> str:
    """The one line with which a run ended."""
    env = {}
    if sabotage is not None:
        env = {
            "RLPOST_SABOTAGE": sabotage,
            "PYTHONPATH": os.pathsep.join([str(SUPPORT / "sabotage"), os.environ.get("PYTHONPATH", "")]),
        }
    command = Command(["train", "config.yaml", f"run.name={name}", *overrides], work, env=env)
    status, out, err = command.start().finish()
    assert status == 1, (out, err)
    lines = [line for line in err.splitlines() if line.startswith("rlpost: ")]
    assert len(lines) == 1, err
    print(f"\n{name}\n    {lines[0]}")
    return lines[0]


@pytest.mark.parametrize(
    ("sabotage", "expected", "overrides"),
    [
        pytest.param(
            "stale_lm_head",
            ["canary: engine 0 and learner differ by", "computes with other weights than it reports"],
            [],
            marks=LONG,
        ),
        pytest.param(
            "stale_prefix_cache", ["canary: engine 0 and learner differ by", "stale prefix cache"], [], marks=LONG
        ),
        pytest.param(
            "update_lost_in_the_engine", ["canary: engine 0 holds other bytes than published"], [], marks=LONG
        ),
        ("update_not_sent", ["canary: engine 0 and learner differ by", "than it reports"], ["tuning.method=lora"]),
        ("update_lost_in_the_learner", ["canary: an update with gradient norm", "moved no entry"], []),
        pytest.param(
            "update_lost_in_the_learner",
            ["canary: ", "masters round to", "do not reach the weights that are published"],
            ["model.dtype=bfloat16", "run.name=update_lost_in_bfloat16"],
            marks=LONG,
        ),
        ("loss_halved", ["invariance: ", "0.5 times"], []),
        ("observed_tokens_trained", ["masks: ", "that the policy did not sample"], TALK),
        pytest.param("mask_off_by_one", ["masks: ", "that it sampled are not"], TALK, marks=LONG),
        pytest.param("observation_taken_for_sampled", ["masks: ", "did not sample"], TALK, marks=LONG),
        pytest.param("loss_divided_by_micro_batches", ["invariance: "], [], marks=LONG),
        (
            "reference_is_the_policy",
            ["parity: the reference policy has moved by"],
            ["algorithm.kl.coef=0.1", "selfcheck.parity_every=1"],
        ),
    ],
)
def test_a_planted_bug_ends_the_run(work: Path, sabotage: str, expected: list[str], overrides: list[str]) -> None:
    line = said(work, sabotage, sabotage, *overrides)
    assert all(part in line for part in expected), line


def test_a_verifier_that_cannot_tell_ends_the_run(work: Path) -> None:
    line = said(work, "undecided", None, f"scoring.verifier_args.function={JUDGE}:cannot_tell")
    assert "scoring: 100% of the last 1 batches stayed undecided (limit 20%), mostly 'unavailable'" in line


def test_a_reward_that_leaks_ends_the_run_with_a_checkpoint(work: Path) -> None:
    line = said(
        work, "leak", None, "scoring.verifier=null", "scoring.verifier_args={}", "selfcheck.memory_window=10",
        f"scoring.rewards=[{{name: '{JUDGE}:leaks'}}]", "run.steps=100",
    )  # fmt: skip
    assert "memory: scoring0 has grown by" in line
    assert "selfcheck.memory_growth=null" in line
    assert list((work / "runs" / "leak" / "checkpoints").iterdir())
