"""Silent bugs, planted one by one into a real run: each ends the run, with the reason and the remedy.

    pytest -m '' -s tests/ray/test_planted_failures.py

prints the last line of each run. The bugs are in support/sabotage; an undecided verifier and a reward that leaks memory
are plug-ins. Verifiers that accept what is false are in tests/contract/test_lean_cheats.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.local_run import peaked
from support.processes import Command
from support.tiny_run import JUDGE, lines, prepare

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.deepspeed, pytest.mark.slow]
LONG = pytest.mark.long
"""For bugs that are also planted between a learner and an engine in tests/integration, or are like another one here."""
SUPPORT = Path(__file__).resolve().parents[1] / "support"
TALK = [f"environment={{name: '{SUPPORT}/dialogues.py:Talk', max_turns: 3, observation_tokens: 4}}"]


@pytest.fixture(scope="module")
def work(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = {"name": "planted", "steps": 3}
    return prepare(tmp_path_factory.mktemp("planted"), tiny_model, run, "names_a_hypothesis", optimizer={"lr": 1e-2})


@pytest.fixture(scope="module")
def sharp(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a model whose distributions depend on their context, sampled below temperature 1."""
    folder = tmp_path_factory.mktemp("sharp")
    rollout = {"group_size": 4, "prompts_per_step": 4, "max_tokens": 12, "kv_cache_mb": 64, "temperature": 0.8}
    model = peaked(tiny_model, folder / "model")
    return prepare(folder, model, {"name": "sharp", "steps": 24}, "names_a_hypothesis", rollout=rollout)


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
    found = [line for line in err.splitlines() if line.startswith("rlpost: ")]
    assert len(found) == 1, err
    print(f"\n{name}\n    {found[0]}")
    return found[0]


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
        pytest.param(
            "update_lost_in_the_learner", ["canary: an update with gradient norm", "moved no entry"], [], marks=LONG
        ),
        pytest.param(
            "update_lost_in_the_learner",
            ["canary: ", "masters round to", "do not reach the weights that are published"],
            ["model.dtype=bfloat16", "run.name=update_lost_in_bfloat16"],
            marks=LONG,
        ),
        pytest.param("loss_halved", ["invariance: ", "0.5 times"], [], marks=LONG),
        ("observed_tokens_trained", ["masks: ", "that the policy did not sample"], TALK),
        pytest.param("mask_off_by_one", ["masks: ", "that it sampled are not"], TALK, marks=LONG),
        pytest.param("observation_taken_for_sampled", ["masks: ", "did not sample"], TALK, marks=LONG),
        pytest.param("loss_divided_by_micro_batches", ["invariance: "], [], marks=LONG),
        pytest.param(
            "reference_is_the_policy",
            ["independent: the loss was given a reference that differs by"],
            ["algorithm.kl.coef=0.1", "selfcheck.parity_every=1"],
            marks=LONG,
        ),
    ],
)
def test_a_planted_bug_ends_the_run(work: Path, sabotage: str, expected: list[str], overrides: list[str]) -> None:
    line = said(work, sabotage, sabotage, *overrides)
    assert all(part in line for part in expected), line


TWICE = ["algorithm.epochs=2", "algorithm.minibatches=2"]
HALVES = [f"scoring.rewards=[{{name: outcome}}, {{name: '{JUDGE}:Halves'}}]"]
KL = ["algorithm.kl.coef=0.1"]
QUICK = {"engine_top_p-bfloat16", "rewards_reversed_in_scoring-float32"}
"""Those that are planted each time; the others, which tests/unit/loop/test_trained_tokens.py plants without Ray and vLLM,
now and then."""
TOKENS = [
    ("learner_at_temperature_one", ["invariance", "mismatch"], []),
    ("engine_without_temperature", ["mismatch"], []),
    ("engine_repetition_penalty", ["mismatch"], []),
    ("prompt_of_another_group", ["mismatch"], []),
    ("first_token_missing", ["mismatch"], []),
    ("proximal_follows_policy", ["independent: the proximal", "mismatch"], TWICE),
    ("engine_top_p", ["mismatch"], []),
    ("last_token_masked", ["invariance", "independent"], []),
    ("end_token_masked", ["invariance", "independent"], []),
    ("advantage_sign_of_one_index", ["credit"], HALVES),
    ("rewards_reversed_in_credit", ["credit"], []),
    ("rewards_reversed_in_scoring", ["scoring"], []),
    ("one_seed_per_group", ["samples"], []),
    ("same_seeds_each_step", ["samples"], []),
    ("kl_sign_turned", ["independent"], KL),
    ("verdicts_shuffled", ["scoring", "scoring.verifier"], []),
    ("logprobs_one_late", ["mismatch", "canary"], []),
    ("engine_without_end", ["mismatch"], []),
    ("reference_at_temperature_one", ["independent", "parity"], KL),
    ("sample_trained_twice", ["independent"], []),
    ("divided_by_micro_batch", ["invariance", "independent"], []),
    ("advantages_one_early", ["invariance", "independent"], HALVES),
]


@pytest.mark.parametrize(
    ("sabotage", "checks", "overrides", "dtype"),
    [
        pytest.param(*case, dtype, id=f"{case[0]}-{dtype}", marks=[] if f"{case[0]}-{dtype}" in QUICK else LONG)
        for case in TOKENS
        for dtype in ("float32", "bfloat16")
    ],
)
def test_a_planted_bug_of_the_trained_tokens_ends_the_run(
    sharp: Path, sabotage: str, checks: list[str], overrides: list[str], dtype: str
) -> None:
    name = f"{sabotage}-{dtype}"
    line = said(sharp, name, sabotage, f"model.dtype={dtype}", "optimizer.lr=1e-3", *overrides)
    assert line.removeprefix("rlpost: ").startswith(tuple(checks)), line
    print(f"    after {len(lines(sharp, name))} steps")


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
