"""The loop's steps with fakes for engines, scoring workers and learner. Not covered: Ray (tests/ray)."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.config.load import from_dict
from rlpost.errors import InfrastructureError, RolloutsLostError, SelfCheckError, UserError
from rlpost.loop.evaluations import Evaluations
from rlpost.loop.session import Session
from rlpost.loop.sync import StageTimer, check_sequences, check_undecided, collect, finish_rewards, learn, publish
from rlpost.observability.metrics import Undecided, undecided_of
from rlpost.plugins.algorithm import build_advantage
from rlpost.plugins.build import reward_needs
from rlpost.protocols import Reply, SamplingSettings, Turn
from rlpost.rollout.environments import EnvironmentHost
from rlpost.rollout.episode import Budget
from rlpost.scoring.score import Scorer
from rlpost.selfcheck.memory import MemoryWatch
from rlpost.trajectory import BatchReceipt, Group, GroupReceipt, SampleReceipt
from rlpost.types import GradientFigures, GradientSketch, Prompt, SpanReward, Verdict
from support.fakes import (
    CharCodec,
    FakeEngine,
    FakeLearner,
    FakeRollouts,
    FakeScoring,
    FakeSupervision,
    FakeTranscripts,
    LocalEnvironments,
    same,
)
from support.trajectories import answer, receipt, tokenized

LOST = Verdict("undecided", None, "crashed")
WRONG = Verdict("rejected", 0.0, "failed")
RIGHT = Verdict("accepted", 1.0, "ok")
JUDGE = """
def even(text, columns):
    return None if text == "?" else len(text) % 2 == 0

class Late:
    needs = ("learner_logprobs",)

    def __call__(self, group):
        from rlpost.types import SpanReward

        pairs = zip(group.trajectories, group.learner_logprobs)
        sums = [float(values[trajectory.mask].sum()) for trajectory, values in pairs]
        return [None if r is None else (SpanReward(0, 1, s),) for r, s in zip(group.rewards, sums, strict=True)]
"""


def word(name: str, source: random.Random) -> str:
    return name * source.randint(1, 4)


def started(folder: Path, answer: Any = word, learner: FakeLearner | None = None, **sections: Any) -> Session:
    """A session of fakes: four prompts, groups of four, a verifier that accepts texts of even length."""
    (folder / "judge.py").write_text(JUDGE)
    config = from_dict(
        {
            "run": {"steps": 3},
            "model": {"path": "m", "dtype": "float32"},
            "rollout": {"group_size": 4, "prompts_per_step": 2, "max_tokens": 8},
            "scoring": {"verifier": "function", "verifier_args": {"function": f"{folder}/judge.py:even"}},
            "selfcheck": {"parity_every": 2},
            **sections,
        }
    )
    prompts = [tokenized(name, [ord(name)]) for name in "abcd"]
    return Session(
        config=config,
        rollouts=FakeRollouts(FakeEngine(answer), FakeEngine(answer)),
        scoring=FakeScoring(Scorer(config.scoring), frozenset(reward_needs(config))),
        learner=learner or FakeLearner(),
        train=prompts,
        held_out=[],
        advantages=build_advantage(config),
        supervision=FakeSupervision(),
        watch=MemoryWatch(config.selfcheck.memory_window),
        fetch=same,
        transcripts=FakeTranscripts(),
    )


def test_a_batch_is_collected_learned_from_and_published(tmp_path: Path) -> None:
    session = started(tmp_path)
    session.publish()
    scored = collect(session, 0)
    # two prompts of four, each with a group of four, in the order they were asked for
    [(asked, settings)] = session.rollouts.asked  # type: ignore[attr-defined]
    assert [group.prompt.id for group in scored.groups] == [request.prompt.prompt.id for request in asked]
    assert [len(group.trajectories) for group in scored.groups] == [4, 4]
    assert (settings.max_tokens, settings.logprobs) == (8, True)  # the parity check of step 0 reads them
    assert [[t.index for t in group.trajectories] for group in scored.groups] == [[0, 1, 2, 3]] * 2
    for group in scored.groups:
        assert [r and r[0].value for r in group.rewards] == [float(len(t.text) % 2 == 0) for t in group.tokens]
    step = learn(session, scored)
    learner = session.learner
    assert isinstance(learner, FakeLearner)
    [batch] = learner.batches
    assert len(batch.samples) == step.metrics["trained_samples"] == 8
    assert [a for row in step.advantages for a in row] == pytest.approx([s.advantages[0] for s in batch.samples])
    publish(session, step, scored.timer)
    assert [engine.version for engine in session.rollouts.engines] == [1, 1]  # type: ignore[attr-defined]
    assert session.published is not None
    assert step.metrics["policy_version"] == session.published.new_version == 1
    assert step.metrics["reward/outcome/mean"] == step.metrics["reward_mean"]
    assert step.metrics["own_mb/learner0"] == 100.0
    assert {"rollout", "scoring", "update", "sync", "step"} <= {
        name.removeprefix("seconds/") for name in step.metrics if name.startswith("seconds/")
    }


def test_the_same_step_is_collected_again_in_the_same_way(tmp_path: Path) -> None:
    session = started(tmp_path, selfcheck={"parity_every": 0})
    first, again, other = ([(g.tokens, g.rewards) for g in collect(session, n).groups] for n in (5, 5, 6))
    assert first == again
    assert first != other


def test_every_group_has_a_ticket_in_order_with_the_version_that_was_served(tmp_path: Path) -> None:
    session = started(tmp_path)
    session.publish()
    first = collect(session, 0)
    step = learn(session, first)
    publish(session, step, first.timer)
    second = collect(session, 1, first_ticket=7)
    tickets = [group.ticket for scored in (first, second) for group in scored.groups]
    assert [ticket and (ticket.number, ticket.version) for ticket in tickets] == [(0, 0), (1, 0), (7, 1), (8, 1)]
    for scored in (first, second):
        for group in scored.groups:
            assert group.ticket is not None
            assert (group.ticket.prompt_id, len(set(group.ticket.seeds))) == (group.prompt.id, 4)
            assert [version for t in group.trajectories for version, _, _ in t.versions] == [group.ticket.version] * 4


def test_a_step_whose_trajectories_are_lost_is_rolled_out_again_with_the_same_seeds(tmp_path: Path) -> None:
    undisturbed = [(g.tokens, g.rewards) for g in collect(started(tmp_path), 1).groups]
    session, scoring = started(tmp_path), FakeScoring.results
    lost = [RolloutsLostError("scoring0: what it reads is gone"), None]

    def results(self: FakeScoring) -> Any:
        if (error := lost.pop(0)) is not None:
            raise error
        return scoring(self)

    session.scoring.results = results.__get__(session.scoring)  # type: ignore[attr-defined]
    assert [(g.tokens, g.rewards) for g in collect(session, 1).groups] == undisturbed
    assert len(session.rollouts.asked) == 2  # type: ignore[attr-defined]
    lost[:] = [RolloutsLostError("gone")] * 9
    with pytest.raises(RolloutsLostError):
        collect(session, 1)


def test_several_sequences_are_refused_where_the_loss_takes_means_over_whole_trajectories(tmp_path: Path) -> None:
    config = started(tmp_path, algorithm={"aggregate": "sequence"}).config
    group = scored_group(RIGHT)
    part = SampleReceipt(group.trajectories[0], group.tokens, 1, (), ())
    check_sequences(config, BatchReceipt((dataclasses.replace(part, part=0),), 0))
    with pytest.raises(UserError, match=r"algorithm.aggregate: sequence would count each .* set aggregate token"):
        check_sequences(config, BatchReceipt((part,), 0))
    check_sequences(started(tmp_path).config, BatchReceipt((part,), 0))
    check_sequences(started(tmp_path, algorithm={"aggregate": "constant"}).config, BatchReceipt((part, part), 0))
    for settings in ({"aggregate": "constant", "minibatches": 2}, {"ratio": "sequence"}, {"aggregate": "span"}):
        with pytest.raises(UserError, match=r"set (aggregate|ratio) token"):
            check_sequences(started(tmp_path, algorithm=settings).config, BatchReceipt((part, part), 0))
    whole = started(tmp_path, algorithm={"importance": {"mode": "mask", "level": "sequence"}}).config
    with pytest.raises(UserError, match=r"algorithm.importance.level: sequence .* set importance.level token"):
        check_sequences(whole, BatchReceipt((part, part), 0))


def test_the_batchs_deviation_and_the_focal_weight_reach_the_samples(tmp_path: Path) -> None:
    algorithm = {"std": "batch", "std_eps": 1e-4, "focal_gamma": 1.0}
    found = collect(started(tmp_path, algorithm=algorithm), 1)
    rewards = [[sum(span.value for span in reward or ()) for reward in group.rewards] for group in found.groups]
    scale = statistics.stdev([r for group in rewards for r in group]) + 1e-4
    assert len({tuple(group) for group in rewards}) > 1
    for group, row in zip(rewards, found.credit.advantages, strict=True):
        mean = statistics.fmean(group)
        weight = 1 - sum(r > 0 for r in group) / len(group)
        assert row == pytest.approx([weight * (r - mean) / scale for r in group], abs=1e-6)


class Rewriting(CharCodec):
    """A template that writes every further turn anew."""

    def dialogue(self, prompt: Prompt) -> Any:
        class Anew:
            unknown = 0

            def observe(self, *_: Any) -> tuple[np.ndarray, bool]:
                return np.array([81], np.int32), True

        return Anew()


class TwoTurns:
    def begin(self, row: Any, seed: int) -> None: ...

    def reply(self, turn: Turn) -> Reply:
        return Reply("more", turn.number == 1, float(len(turn.text)))

    def close(self) -> None: ...


def test_a_template_that_rewrites_history_is_said_once_and_all_its_sequences_are_trained(tmp_path: Path) -> None:
    talk = {"environment": {"name": "talk.py:Talk"}, "scoring": {"rewards": [{"name": "turns"}]}}
    session = started(tmp_path, answer=lambda context, source: "x" * source.randint(1, 3), **talk)
    session.rollouts = FakeRollouts(
        FakeEngine(lambda context, source: "x" * source.randint(1, 3)),
        environments=LocalEnvironments(EnvironmentHost(TwoTurns)), budget=Budget(3, 32, 8), codec=Rewriting(),
    )  # fmt: skip
    session.publish()
    for number in (1, 2):
        batch = collect(session, number).credit.batch
        assert [sample.part for sample in batch.samples] == [0, 1] * 8
    [line] = session.supervision.lines  # type: ignore[attr-defined]
    assert "the chat template rewrites earlier messages" in line


def test_parity_is_checked_when_due_and_a_failure_ends_the_run(tmp_path: Path) -> None:
    learner = FakeLearner()
    session = started(tmp_path, learner=learner)
    session.publish()
    assert "parity/total" in collect(session, 0).checked
    assert collect(session, 1).checked.keys() == {"identical_groups"}
    learner.off = 0.5
    with pytest.raises(SelfCheckError, match=r"parity: engine 0 and learner differ by 0\.5 nats"):
        collect(session, 2)


def test_a_canary_that_fails_ends_the_run_at_the_sync(tmp_path: Path) -> None:
    learner = FakeLearner()
    session = started(tmp_path, learner=learner)
    session.publish()
    scored = collect(session, 0)
    learner.frozen = True
    step = learn(session, scored)
    with pytest.raises(SelfCheckError, match="changed no published byte"):
        publish(session, step, scored.timer)


def test_the_first_gradient_is_checked_once_and_a_wrong_one_ends_the_run(tmp_path: Path) -> None:
    learner = FakeLearner()
    session = started(tmp_path, learner=learner)
    session.publish()
    sketch = GradientSketch(1.0, {"w": np.ones(3)})
    learn(session, collect(session, 0))
    assert not session.examined  # a batch without gradient figures does not count as the check
    learner.figures = GradientFigures(8, sketch, sketch, None)
    assert learn(session, collect(session, 0)).metrics["invariance/micro_batching"] == 0.0
    assert session.examined
    learner.figures = dataclasses.replace(learner.figures, own=GradientSketch(1.0, {"w": np.full(3, 0.5)}))
    learn(session, collect(session, 0))
    session.examined = False
    with pytest.raises(SelfCheckError, match=r"0\.5 times"):
        learn(session, collect(session, 0))


def test_a_batch_with_nothing_to_train_on_is_no_update_and_no_sync(tmp_path: Path) -> None:
    session = started(tmp_path, answer=lambda name, source: "aa", algorithm={"filter": "binary"})
    session.publish()
    scored = collect(session, 1)
    step = learn(session, scored)
    publish(session, step, scored.timer)
    assert (step.metrics["trained_samples"], step.metrics["kept_groups"]) == (0.0, 0.0)
    assert "updates" not in step.metrics
    assert step.metrics["policy_version"] == 0.0


def test_an_undecided_verifier_ends_the_run(tmp_path: Path) -> None:
    session = started(tmp_path, answer=lambda name, source: "?")
    session.publish()
    with pytest.raises(InfrastructureError, match="100% of the last 1 batches stayed undecided"):
        collect(session, 1)


def test_changes_are_tracked_when_due(tmp_path: Path) -> None:
    session = started(tmp_path, logging={"changes_every": 2})
    session.publish()
    found = []
    for number in range(2):
        scored = collect(session, number)
        step = learn(session, scored)
        publish(session, step, scored.timer)
        found.append((len(step.changes), "changes/changed_share" in step.metrics))
    assert found == [(0, False), (1, True)]


def batch(lost: int, decided: int) -> list[Undecided]:
    trajectories = tuple(answer("x", i) for i in range(lost + decided))
    verdicts = (LOST,) * lost + (WRONG,) * decided
    rewards = (None,) * lost + ((SpanReward(0, 2, 0.0),),) * decided
    return [undecided_of(receipt(Group(Prompt("p", text="p"), trajectories, verdicts, rewards)))]


def test_the_undecided_share_is_averaged_over_several_batches() -> None:
    check_undecided([batch(0, 8), batch(6, 2), batch(0, 8)], limit=0.25)


def test_the_share_over_the_window_stops_the_run_with_the_commonest_reason() -> None:
    with pytest.raises(
        InfrastructureError, match=r"38% of the last 2 batches stayed undecided \(limit 25%\).*'crashed'"
    ):
        check_undecided([batch(0, 8), batch(6, 2)], limit=0.25)


def test_the_undecided_limit_applies_to_the_first_batch_alone() -> None:
    with pytest.raises(InfrastructureError, match="100% of the last 1 batches"):
        check_undecided([batch(4, 0)], limit=0.5)


def scored_group(*verdicts: Verdict) -> GroupReceipt:
    trajectories = tuple(answer("x", i) for i in range(len(verdicts)))
    rewards = tuple((SpanReward(0, 2, float(v.score or 0)),) for v in verdicts)
    return receipt(Group(Prompt("p", text="p"), trajectories, verdicts, rewards))


def late(folder: Path, **algorithm: str) -> Session:
    function = {"verifier": "function", "verifier_args": {"function": f"{folder}/judge.py:even"}}
    rewards = [{"name": f"{folder}/judge.py:Late"}]
    return started(folder, scoring={**function, "rewards": rewards}, algorithm=algorithm)


def test_late_stages_see_the_learners_figures_of_the_groups_that_will_be_trained_on(tmp_path: Path) -> None:
    session = late(tmp_path, filter="binary")
    groups = finish_rewards(session, [scored_group(RIGHT, RIGHT), scored_group(RIGHT, WRONG)], StageTimer())
    assert session.scoring.finished == [1]  # type: ignore[attr-defined]
    assert session.learner.asked == [2]  # type: ignore[union-attr]
    assert [group.proximal is not None for group in groups] == [False, True]
    assert [[span.value for span in reward or ()] for reward in groups[1].rewards] == [[-1.0], [-1.0]]
    assert [[span.value for span in reward or ()] for reward in groups[0].rewards] == [[1.0], [1.0]]


def test_every_group_is_finished_under_the_shaped_filter(tmp_path: Path) -> None:
    session = late(tmp_path, filter="shaped")
    finish_rewards(session, [scored_group(RIGHT, RIGHT), scored_group(RIGHT, WRONG)], StageTimer())
    assert session.scoring.finished == [2]  # type: ignore[attr-defined]


def test_without_late_stages_the_learner_is_not_asked(tmp_path: Path) -> None:
    session = started(tmp_path)
    finish_rewards(session, [scored_group(RIGHT, WRONG)], StageTimer())
    assert session.learner.asked == []  # type: ignore[union-attr]


def test_evaluations_are_recorded_with_their_sampling_and_followed_answers_are_sampled_plainly(tmp_path: Path) -> None:
    def row(title: str, **sampling: float) -> dict[str, Any]:
        folder = tmp_path / title
        folder.mkdir()
        evaluation = {"samples": 2, "k": [1], "greedy": False, "uplift_prompts": 2, "sampling": sampling}
        session = started(folder, data={"eval": "held_out.jsonl"}, evaluation=evaluation)
        session.held_out = [tokenized(name, [ord(name)]) for name in "ef"]
        session.publish()
        asked: list[SamplingSettings] = []
        generate = session.rollouts.generate

        def noting(requests: Any, settings: SamplingSettings) -> Any:
            asked.append(settings)
            return generate(requests, settings)

        session.rollouts.generate = noting  # type: ignore[method-assign]
        evaluations = Evaluations(session.config, folder, session, lambda _: None)
        evaluations.begin()
        evaluations.measure("before", -1)
        assert [one.top_p for one in asked] == [1.0, sampling.get("top_p", 1.0)]
        assert [one.max_tokens for one in asked] == [8, 8]
        # what is read again are figures only
        again = Evaluations(session.config, folder, session, lambda _: None)
        again.truncate_after(0)
        assert again.rows == evaluations.rows
        return json.loads((folder / "evaluations.jsonl").read_text())

    assert row("plain")["sampling"] == "temperature 1, at most 8 tokens"
    assert row("nucleus", top_p=0.9, temperature=0.6)["sampling"] == "temperature 0.6, top_p 0.9, at most 8 tokens"


def test_a_step_asks_on_until_enough_groups_pass_the_filter(tmp_path: Path) -> None:
    """Prompts a and b never have contrast; c and d always do."""

    def half(name: str, source: random.Random) -> str:
        return "aa" if name in "ab" else name * (1 + source.getrandbits(1))

    def enough(batches: int, first: int | None = None) -> Any:
        session = started(
            tmp_path, half, data={"shuffle": False}, rollout={"group_size": 12, "prompts_per_step": 2, "max_tokens": 8},
            algorithm={"filter": "binary", "filter_batches": batches}, selfcheck={"parity_every": 0},
        )  # fmt: skip
        session.publish()
        return session, collect(session, 0, first)

    session, scored = enough(3)
    assert [group.prompt.id for group in scored.groups] == ["a", "b", "c", "d"]
    assert [group.ticket.number for group in scored.groups] == [0, 1, 2, 3]
    assert len({group.ticket.seeds for group in scored.groups}) == 4
    assert {sample.tokens[0].ticket.prompt_id for sample in scored.credit.batch.samples} == {"c", "d"}
    assert (scored.credit.kept_groups, [row[0] is None for row in scored.credit.advantages]) == (
        2,
        [True, True, False, False],
    )
    assert scored.checked | {"refill/batches": 2.0, "refill/missing": 0.0, "refill/unused": 0.0} == scored.checked
    assert learn(session, scored).metrics["trained_samples"] == 24
    # tickets go on where they ended: b has no contrast, c and d have, and the second c is not needed
    _, later = enough(3, first=1)
    assert [group.prompt.id for group in later.groups] == ["b", "c", "d", "a"]
    assert later.checked["refill/unused"] == 0.0
    _, spare = enough(3, first=2)
    assert [group.prompt.id for group in spare.groups] == ["c", "d"]
    # a bound: the step trains on what it has, here nothing
    _, few = enough(1)
    assert (len(few.groups), few.credit.kept_groups) == (2, 0)
    assert "refill/batches" not in few.checked


def test_groups_that_pass_and_are_not_needed_are_not_trained_on(tmp_path: Path) -> None:
    session = started(
        tmp_path, lambda name, source: "aa" if name == "a" else name * (1 + source.getrandbits(1)),
        data={"shuffle": False}, rollout={"group_size": 12, "prompts_per_step": 2, "max_tokens": 8},
        algorithm={"filter": "binary", "filter_batches": 2}, selfcheck={"parity_every": 0},
    )  # fmt: skip
    session.publish()
    scored = collect(session, 0)
    assert [group.prompt.id for group in scored.groups] == ["a", "b", "c", "d"]
    assert {sample.tokens[0].ticket.prompt_id for sample in scored.credit.batch.samples} == {"b", "c"}
    assert scored.checked["refill/unused"] == 1.0
    assert [row[0] is None for row in scored.credit.advantages] == [True, False, False, True]
    learn(session, scored)
