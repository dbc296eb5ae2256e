"""Evaluation figures by hand, with a scripted engine. Not covered: real engines, actors, the report for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.errors import InfrastructureError
from rlpost.evaluation.outcomes import Outcome
from rlpost.loop.evaluate import evaluate
from rlpost.protocols import GroupRequest, SamplingSettings
from rlpost.rollout.sampling import requests
from rlpost.scoring.score import Scorer
from rlpost.trajectory import GroupReceipt, Receipt, Trajectory
from support.fakes import FakeScoring, same
from support.trajectories import answer, tokenized

PROMPTS = [tokenized(name, columns={"answer": "y"}) for name in ("easy", "half", "hard")]
SCRIPT = {"easy": ["y"] * 4, "half": ["y", "n", "y", "n"], "hard": ["n", "n", "n", "n"]}
GREEDY = {"easy": "y", "half": "y", "hard": "n"}
JUDGES = """
def right(text, columns):
    return {"?": None}.get(text, text == columns["answer"])

def paid(completions, answer):
    return [float(c == a) for c, a in zip(completions, answer)]
"""


class Scripted:
    """A scripted engine with an answer for each member of the group; the answer ``cut`` is truncated by length."""

    def __init__(self, script: dict[str, list[str]], greedy: dict[str, str]):
        self.script, self.greedy, self.asked = script, greedy, []

    def __call__(self, asked: Sequence[GroupRequest], settings: SamplingSettings) -> list[GroupReceipt]:
        self.asked.append((list(asked), settings))
        found: list[GroupReceipt] = []
        for r in asked:
            members = tuple(self._one(r.prompt.prompt.id, i, settings) for i in range(len(r.seeds)))
            found.append(GroupReceipt(r.ticket, r.prompt.prompt, tuple(map(Receipt.of, members)), members))
        return found

    def _one(self, name: str, i: int, settings: SamplingSettings) -> Trajectory:
        text = self.greedy[name] if settings.temperature == 0 else self.script[name][i]
        return answer("y", i, finish="length") if text == "cut" else answer(text, i)


def scorer(config: RunConfig) -> FakeScoring:
    return FakeScoring(Scorer(config.scoring))


@pytest.fixture
def configured(tmp_path: Path) -> Any:
    file = tmp_path / "judges.py"
    file.write_text(JUDGES)

    def make(verifier: bool = True, **evaluation: Any) -> RunConfig:
        scoring = (
            {"verifier": "function", "verifier_args": {"function": f"{file}:right"}}
            if verifier
            else {"rewards": [{"name": f"{file}:paid"}], "pass_threshold": 0.5, "truncated": "reject"}
        )
        return from_dict(
            {"model": {"path": "m"}, "scoring": scoring, "evaluation": {"samples": 4, "k": [1, 2, 4], **evaluation}}
        )

    return make


def run(config: RunConfig, script: dict[str, list[str]], greedy: dict[str, str] = GREEDY) -> dict[str, float]:
    found = evaluate(PROMPTS, Scripted(script, greedy), scorer(config).score, config, same)
    return found.figures(config.evaluation.ks(config.evaluation.samples))


@pytest.mark.parametrize("verifier", [True, False])
def test_figures_by_hand(configured: Any, verifier: bool) -> None:
    found = run(configured(verifier), SCRIPT)
    # c of 4: 4, 2, 0. pass@1: 1, 1/2, 0; pass@2: 1, 1 - 1/6, 0; pass@4: 1, 1, 0; greedy: 1, 1, 0
    assert found["pass@1"] == pytest.approx(1 / 2)
    assert found["pass@2"] == pytest.approx((1 + 5 / 6) / 3)
    assert found["pass@4"] == pytest.approx(2 / 3)
    assert found["greedy"] == pytest.approx(2 / 3)
    # pass@1 around 1/2: squares 1/4 + 0 + 1/4 over 2, over 3 problems
    assert found["pass@1_se"] == pytest.approx(math.sqrt(0.25 / 3))
    # greedy around 2/3: 1/9 + 1/9 + 4/9 over 2, over 3 problems
    assert found["greedy_se"] == pytest.approx(math.sqrt(1 / 3 / 3))
    assert (found["prompts"], found["undecided"]) == (3.0, 0.0)


def test_undecided_answers_count_neither_for_nor_against(configured: Any) -> None:
    script = {**SCRIPT, "half": ["y", "?", "?", "n"]}
    found = run(configured(k=[1, 4]), script)
    # half: 1 of 2 decided; pass@4 is over the two prompts with four decided answers
    assert found["pass@1"] == pytest.approx(1 / 2)
    assert found["pass@4"] == pytest.approx(1 / 2)
    assert found["undecided"] == pytest.approx(2 / 12)


def test_a_truncated_answer_counts_as_wrong_next_to_verified_ones(configured: Any) -> None:
    found = run(configured(k=[1]), {**SCRIPT, "easy": ["y", "y", "y", "cut"]})
    assert found["pass@1"] == pytest.approx((3 / 4 + 1 / 2) / 3)


def test_one_truncated_answer_does_not_hide_the_others_where_rewards_score(configured: Any) -> None:
    """Without a verifier a truncated completion is the only one with a verdict; the other three were scored too."""
    found = run(configured(verifier=False, k=[1]), {**SCRIPT, "easy": ["y", "y", "y", "cut"]})
    assert found["undecided"] == 0.0
    assert found["pass@1"] == pytest.approx((3 / 4 + 1 / 2) / 3)


def test_nothing_decided_is_a_failure_and_not_a_zero(configured: Any) -> None:
    with pytest.raises(InfrastructureError, match="no prompt has 1 decided samples"):
        run(configured(k=[1]), {name: ["?"] * 4 for name in SCRIPT})
    with pytest.raises(InfrastructureError, match="no greedy answer could be decided"):
        run(configured(k=[1]), SCRIPT, dict.fromkeys(GREEDY, "?"))


def test_seeds_are_the_same_every_time_and_greedy_is_greedy(configured: Any) -> None:
    config, engines = configured(), [Scripted(SCRIPT, GREEDY), Scripted(SCRIPT, GREEDY)]
    for engine in engines:
        evaluate(PROMPTS, engine, scorer(config).score, config, same)
    assert engines[0].asked == engines[1].asked
    (_, greedy), (_, sampled) = engines[0].asked
    assert (sampled.temperature, sampled.max_tokens, sampled.logprobs) == (1.0, config.rollout.max_tokens, False)
    assert (greedy.temperature, greedy.top_p, greedy.top_k) == (0.0, 1.0, -1)
    train = requests(PROMPTS[:1], run_seed=config.run.seed, step=0, group_size=4)
    assert engines[0].asked[1][0][0].seeds != train[0].seeds
    assert {request.ticket for asked, _ in engines[0].asked for request in asked} == {None}


def test_an_evaluation_samples_as_its_own_section_says(configured: Any) -> None:
    config = configured(sampling={"temperature": 0.6, "top_p": 0.9, "top_k": 5, "max_tokens": 512})
    engine = Scripted(SCRIPT, GREEDY)
    evaluate(PROMPTS, engine, scorer(config).score, config, same)
    (_, greedy), (_, sampled) = engine.asked
    assert sampled == SamplingSettings(512, 0.6, 0.9, 5, (), False)
    # the greedy answer takes its length only
    assert greedy == SamplingSettings(512, 0.0, 1.0, -1, (), False)


def test_many_prompts_are_asked_in_chunks_with_seeds_of_their_own(configured: Any) -> None:
    prompts = [tokenized(str(i), columns={"answer": "y"}) for i in range(300)]
    engine = Scripted({str(i): ["y"] * 4 for i in range(300)}, {str(i): "n" for i in range(300)})
    config = configured(k=[4], greedy=False)
    scored: list[int] = []

    def score(groups: Sequence[GroupReceipt]) -> list[GroupReceipt]:
        scored.append(len(groups))
        return scorer(config).score(groups)

    recorded: list[Outcome] = []
    found = evaluate(prompts, engine, score, config, same, record=recorded.append)
    assert recorded == found.outcomes == [Outcome(str(i), "1111", 1, rewards=(1.0,) * 4) for i in range(300)]
    assert found.figures((4,)) == {
        **{"pass@4": 1.0, "pass@4_se": 0.0, "pass@4_low": 1.0, "pass@4_high": 1.0},
        **{"distinct": 1.0, "prompts": 300.0, "undecided": 0.0, "accepted function": 1.0},
    }
    # 512 completions per request: 128 prompts of 4
    assert scored == [128, 128, 44]
    seeds = [r.seeds[0] for asked, _ in engine.asked for r in asked]
    assert len(set(seeds)) == 300


def graded(tmp_path: Path, **scoring: Any) -> RunConfig:
    file = tmp_path / "grades.py"
    file.write_text(
        "def grade(completions, **columns):\n    return [float(c) if c != '?' else None for c in completions]\n"
    )
    rewards = [{"name": f"{file}:grade"}]
    return from_dict(
        {
            "model": {"path": "m"},
            "scoring": {"rewards": rewards, **scoring},
            "evaluation": {"samples": 4, "k": [1, 4]},
        }
    )


GRADES = {"easy": ["0.2", "0.2", "0.2", "?"], "half": ["-1", "1", "-1", "1"], "hard": ["0.1", "0.1", "0.1", "0.1"]}
GREEDY = {"easy": "0.4", "half": "-0.4", "hard": "?"}


def test_without_verdicts_a_positive_grade_is_no_right_answer(tmp_path: Path) -> None:
    found = run(graded(tmp_path), GRADES, GREEDY)
    assert not any(name.startswith(("pass@", "distinct")) or name == "greedy" for name in found)
    assert found["reward"] == pytest.approx((0.2 + 0.0 + 0.1) / 3)
    assert found["reward_low"] <= found["reward"] <= found["reward_high"]
    assert found["greedy_reward"] == pytest.approx(0.0)
    assert found["undecided"] == pytest.approx(1 / 12)


def test_a_threshold_makes_grades_right_or_wrong(tmp_path: Path) -> None:
    found = run(graded(tmp_path, pass_threshold=0.15), GRADES, GREEDY)
    assert found["pass@1"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["greedy"] == pytest.approx(1 / 2)
    assert found["reward"] == pytest.approx(0.1)
    assert found["distinct"] == pytest.approx(2 / 3)


def test_without_a_finished_answer_0_is_not_the_best_of_negative_rewards(tmp_path: Path) -> None:
    file = tmp_path / "cost.py"
    file.write_text("def cost(completions, **columns):\n    return [-2.0 - (c == 'n') for c in completions]\n")
    scoring = {"rewards": [{"name": f"{file}:cost"}], "truncated": "reject"}
    config = from_dict({"model": {"path": "m"}, "scoring": scoring, "evaluation": {"samples": 4, "k": [1]}})
    finished = run(config, SCRIPT)
    cut = run(config, {**SCRIPT, "hard": ["cut"] * 4}, {**GREEDY, "hard": "cut"})
    assert (cut["reward"], cut["greedy_reward"]) == (finished["reward"], finished["greedy_reward"])
    kept = config.model_copy(update={"scoring": config.scoring.model_copy(update={"truncated": "keep"})})
    assert run(kept, {**SCRIPT, "hard": ["cut"] * 4})["reward"] == pytest.approx((-2 - 2.5 - 2) / 3)
