"""Verdicts and the reward pipeline with plain functions. Not covered: real verifiers, retries over actors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import DataError, RlpostError, SelfCheckError, UserError
from rlpost.plugins.build import build_stage, build_verifier
from rlpost.protocols import Verifier
from rlpost.scoring.score import Scorer, drop_empty_rewards, undecided
from rlpost.scoring.stages import run_stages
from rlpost.trajectory import FinishReason, Group, Segment, Status, Trajectory
from rlpost.types import Prompt, Reward, SpanReward, Verdict, VerifyItem
from support.trajectories import answer, receipt

FUNCTIONS = """
def right(text, columns):
    return {"crash": None}.get(text, text == columns["answer"])

def length(completions):
    return [float(len(c)) for c in completions]

def some(completions):
    return [None if c == "?" else 2.0 for c in completions]

class Ends:
    needs = ()

    def __call__(self, group):
        from rlpost.types import SpanReward

        pairs = zip(group.trajectories, group.rewards)
        return [
            None if r is None else (*r, SpanReward(1, 2, float(t.text[:1] == "4")), SpanReward(t.length - 1, t.length, 0.5, 1))
            for t, r in pairs
        ]
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    file = tmp_path / "functions.py"
    file.write_text(FUNCTIONS)
    return str(file)


def group(*texts: str, reasons: Sequence[FinishReason] | None = None, right: str = "4") -> Group:
    members = tuple(
        answer(text, i, finish=reason)
        for i, (text, reason) in enumerate(zip(texts, reasons or ["stop"] * len(texts), strict=True))
    )
    return Group(Prompt("p", text="2+2", columns={"answer": right}), members)


def section(functions: str, **options: Any) -> ScoringSection:
    defaults: dict[str, Any] = {"verifier": "function", "verifier_args": {"function": f"{functions}:right"}}
    return ScoringSection(**{**defaults, **options})


def values(scored: Group) -> list[float | None]:
    return [None if r is None else sum(s.value for s in r) for r in scored.rewards]


def test_the_outcome_pays_one_span_over_the_whole_completion(functions: str) -> None:
    [scored] = Scorer(section(functions)).score([group("4", "55")])
    assert scored.rewards == ((SpanReward(0, 2, 1.0),), (SpanReward(0, 3, 0.0),))
    assert [v.outcome for v in scored.verdicts if v] == ["accepted", "rejected"]


def test_undecided_is_never_zero(functions: str) -> None:
    [scored] = Scorer(section(functions)).score([group("4", "crash", "5")])
    assert values(scored) == [1.0, None, 0.0]
    assert undecided(receipt(scored)) == 1


@pytest.mark.parametrize(("rule", "expected", "reason"), [
    ("reject", 0.0, "truncated"), ("mask", 1.0, "accepted"), ("keep", 1.0, "accepted"),
])  # fmt: skip
def test_truncated_completions(functions: str, rule: str, expected: float, reason: str) -> None:
    [scored] = Scorer(section(functions, truncated=rule)).score([group("4", "4", reasons=["stop", "length"])])
    assert values(scored) == [1.0, expected]
    assert scored.verdicts[1] is not None
    assert scored.verdicts[1].reason == reason


@pytest.mark.parametrize("verifier", [True, False])
def test_an_aborted_completion_is_undecided(functions: str, verifier: bool) -> None:
    options: dict[str, Any] = (
        {} if verifier else {"verifier": None, "rewards": (RewardSpec(name=f"{functions}:length"),)}
    )
    [scored] = Scorer(section(functions, **options)).score([group("4", "4", reasons=["abort", "stop"])])
    assert values(scored) == [None, 1.0]
    assert scored.verdicts[0] is not None
    assert (scored.verdicts[0].outcome, scored.verdicts[0].reason) == ("undecided", "unavailable")


def test_only_open_completions_are_verified_and_verdicts_keep_their_order(functions: str) -> None:
    groups = [group("4", "4", "5", reasons=["length", "stop", "stop"]), group("6", "7", right="7")]
    scored = Scorer(section(functions)).score(groups)
    assert [values(g) for g in scored] == [[0.0, 1.0, 0.0], [0.0, 1.0]]


def test_stages_run_in_order_and_add_up(functions: str) -> None:
    rewards = (
        RewardSpec(name="outcome", weight=10.0),
        RewardSpec(name=f"{functions}:length", weight=0.5),
    )
    [scored] = Scorer(section(functions, rewards=rewards)).score([group("4", "55", "crash")])
    # 10 + 0.5 · 1; 0 + 0.5 · 2; undecided stays undecided whatever the second stage would pay
    assert values(scored) == [10.5, 1.0, None]
    assert scored.rewards[0] == (SpanReward(0, 2, 10.5),)


def test_a_completion_that_no_stage_rewards_has_no_reward_in_the_end(functions: str) -> None:
    rewards = (RewardSpec(name=f"{functions}:some"),)
    [scored] = Scorer(section(functions, verifier=None, rewards=rewards)).score([group("?", "x")])
    assert scored.rewards == ((), (SpanReward(0, 2, 2.0),))
    assert drop_empty_rewards(receipt(scored)).rewards == (None, (SpanReward(0, 2, 2.0),))


def dialogue(status: Status = "done", verdict: Verdict | None = None) -> Trajectory:
    """Two turns of one token each, with an observation of one between them."""
    segments = (
        Segment("prompt", 0, 1, -1),
        Segment("policy", 1, 2, 0, "3"),
        Segment("environment", 2, 3, 0, "higher"),
        Segment("policy", 3, 4, 1, "4"),
    )
    return Trajectory(None, 0, np.arange(4, dtype=np.int32), None, (), segments, status, verdict)


def played(*members: Trajectory) -> Group:
    return Group(Prompt("p", text="2+2", columns={"answer": "4"}), members)


def test_a_verifier_gets_the_last_turn_as_the_answer_and_all_of_them_besides(functions: str) -> None:
    seen: list[VerifyItem] = []

    class Noting(Miscounting):
        def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
            seen.extend(items)
            return super().verify_batch(items)

    scorer = Scorer(section(functions), dialogues=True)
    scorer.verifier = Noting(0)
    [scored] = scorer.score([played(dialogue(), answer("4", 1))])
    assert [(item.text, item.turns) for item in seen] == [("4", ("3", "4")), ("4", ())]
    assert scored.rewards[0] == (SpanReward(0, 4, 1.0),)


def test_an_environments_verdicts_count_where_there_is_no_verifier(functions: str) -> None:
    won = Verdict("accepted", 1.0, "won")
    members = played(dialogue(verdict=won), dialogue(), dialogue("turns", won), dialogue("aborted", won))
    [scored] = Scorer(section(functions, verifier=None), dialogues=True).score([members])
    assert [v and v.reason for v in scored.verdicts] == ["won", None, "truncated", "unavailable"]
    # one without a verdict is neither right nor wrong
    assert values(scored) == [1.0, None, 0.0, None]
    [judged] = Scorer(section(functions), dialogues=True).score([members])
    assert [v and v.reason for v in judged.verdicts] == ["accepted", "accepted", "truncated", "unavailable"]


@pytest.mark.parametrize("verifier", [True, False])
def test_a_failed_environment_leaves_its_own_undecided_verdict(functions: str, verifier: bool) -> None:
    failed = Verdict("undecided", None, "environment_failed", evidence={"messages": ["KeyError: 'x'"]})
    options: dict[str, Any] = {} if verifier else {"verifier": None}
    [scored] = Scorer(section(functions, **options), dialogues=True).score([played(dialogue("aborted", failed))])
    assert (scored.verdicts, scored.rewards) == ((failed,), (None,))


LATE = """
import dataclasses
from rlpost.types import RewardOutput

class Late:
    needs = ("learner_logprobs",)

    def __call__(self, group):
        assert len(group.learner_logprobs) == len(group.trajectories)
        doubled = [
            None if r is None else tuple(dataclasses.replace(s, value=s.value * 2) for s in r) for r in group.rewards
        ]
        return RewardOutput(doubled, {"doubled": sum(r is not None for r in doubled)})
"""


def test_stages_from_the_first_late_one_on_run_once_the_learners_logprobs_are_there(functions: str) -> None:
    (Path(functions).parent / "late.py").write_text(LATE)
    late = RewardSpec(name=f"{Path(functions).parent}/late.py:Late")
    scorer = Scorer(section(functions, rewards=(RewardSpec(name="outcome"), late, RewardSpec(name="outcome"))))
    [scored] = scorer.score([group("4", "crash")])
    assert values(scored) == [1.0, None]
    # 1 doubled by the late stage, and 1 more by the last
    [finished] = scorer.finish([dataclasses.replace(scored, learner_logprobs=(np.zeros(2), np.zeros(6)))])
    assert values(finished) == [3.0, None]
    assert finished.stage_rewards == {"outcome": (1.0, None), "Late": (1.0, None), "outcome_2": (1.0, None)}
    assert finished.metrics == {"Late/doubled": 1.0}


def test_a_truncated_answer_stays_worth_nothing_after_late_stages_that_would_pay_it(functions: str) -> None:
    (Path(functions).parent / "late.py").write_text(LATE)
    late = RewardSpec(name=f"{Path(functions).parent}/late.py:Late")
    paid = RewardSpec(name=f"{functions}:length")
    scorer = Scorer(section(functions, rewards=(RewardSpec(name="outcome"), late, paid)))
    [scored] = scorer.score([group("4", "555", reasons=["stop", "length"])])
    logprobs = (np.zeros(2), np.zeros(4))
    [finished] = scorer.finish([dataclasses.replace(scored, learner_logprobs=logprobs)])
    assert values(finished) == [3.0, 0.0]


class Short:
    needs: tuple[str, ...] = ()

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        return [()]


def test_a_stage_that_answers_too_few_is_named() -> None:
    judged = dataclasses.replace(group("a", "b"), verdicts=(None, None), rewards=((), ()))
    with pytest.raises(UserError, match="reward stage Short answered 1 of 2"):
        run_stages([judged], [("short", Short())])


class Miscounting:
    """A verifier that loses the first item, as a plug-in with a bug might."""

    fingerprint = "miscounting"

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        return [Verdict("accepted", 1.0, "ok")] * (len(items) + self.extra)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_verifier_that_answers_for_another_number_is_not_trusted(functions: str, extra: int) -> None:
    scorer = Scorer(section(functions))
    scorer.verifier = Miscounting(extra)
    assert isinstance(scorer.verifier, Verifier)
    with pytest.raises(RlpostError, match="verifier"):
        scorer.score([group("4", "5")])


def test_bad_names_and_arguments_are_the_users_mistake(functions: str) -> None:
    with pytest.raises(UserError, match="reward 'outcme' is not known; did you mean outcome"):
        build_stage(RewardSpec(name="outcme"))
    with pytest.raises(UserError, match=r"scoring\.rewards: 'outcome' cannot take {'wait': 1}"):
        build_stage(RewardSpec(name="outcome", wait=1))
    with pytest.raises(UserError, match=r"scoring\.verifier_args: 'function' cannot take {'f': 1}"):
        build_verifier(ScoringSection(verifier="function", verifier_args={"f": 1}))
    assert build_verifier(ScoringSection(verifier=None)) is None


class Examined:
    """A verifier with a conformance report of so many failures, which cannot verify the prompt ``bad``."""

    fingerprint = "examined/1"

    def __init__(self, failures: int = 0) -> None:
        self.failures = ["cheat"] * failures
        self.asked = 0

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        return [Verdict("rejected", 0.0, "no")] * len(items)

    def close(self) -> None:
        pass

    def conformance(self) -> Examined:
        self.asked += 1
        return self

    def summary(self) -> str:
        return f"examined/1: accepted {len(self.failures)} cheats"

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            if prompt.id == "bad":
                raise DataError("prompt 'bad': cannot be judged")


def examined(functions: str, verifier: Examined | None, conformance: bool = True, prompt: str = "good") -> str:
    scorer = Scorer(section(functions))
    scorer.verifier = verifier  # pyright: ignore[reportAttributeAccessIssue]
    return scorer.preflight([Prompt(prompt, text="2+2")], conformance, trials=False)


def test_a_verifier_that_can_be_fooled_is_refused(functions: str) -> None:
    with pytest.raises(SelfCheckError, match=r"accepted 1 cheats; .* selfcheck\.conformance=false"):
        examined(functions, Examined(failures=1))
    unasked = Examined(failures=1)
    assert examined(functions, unasked, conformance=False) == "examined/1"
    assert unasked.asked == 0


def test_prompts_that_cannot_be_verified_are_refused_before_training(functions: str) -> None:
    assert examined(functions, Examined()) == "examined/1: accepted 0 cheats"
    with pytest.raises(DataError, match="prompt 'bad'"):
        examined(functions, Examined(), prompt="bad")


def test_a_verifier_without_a_gate_is_named(functions: str) -> None:
    assert Scorer(section(functions)).preflight([], True).startswith("function/")
    assert examined(functions, None) == "no verifier"


def test_parts_belong_to_their_stage_and_what_all_stages_pay_for_the_whole_is_one_reward(functions: str) -> None:
    """Brevity of -1 per character and an outcome for the whole, ends by themselves: index 0 of both is not one group."""
    stages = ({"name": "outcome"}, {"name": f"{functions}:Ends"}, {"name": f"{functions}:length", "weight": -1.0})
    rewards = tuple(RewardSpec(**stage) for stage in stages)
    [scored] = Scorer(section(functions, rewards=rewards)).score([group("4", "55")])
    assert scored.rewards == (
        (SpanReward(0, 2, 0.0), SpanReward(1, 2, 1.0, 0, stage="Ends"), SpanReward(1, 2, 0.5, 1, stage="Ends")),
        (SpanReward(0, 3, -2.0), SpanReward(1, 2, 0.0, 0, stage="Ends"), SpanReward(2, 3, 0.5, 1, stage="Ends")),
    )
    assert scored.stage_rewards == {"outcome": (1.0, 0.0), "Ends": (1.5, 0.5), "length": (-1.0, -2.0)}
