"""Metrics of a batch by hand, their names, and their file. Not covered: TensorBoard, W&B, the terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.observability.metrics import METRICS, assurances, check_names, describe_groups, prefixed, tokens
from rlpost.observability.progress import summary
from rlpost.observability.sinks import JsonlSink, read_lines
from rlpost.trajectory import FinishReason, Group, GroupReceipt, Segment, Trajectory
from rlpost.types import Prompt, Reward, SpanReward, Verdict
from support.trajectories import answer, receipt

YES, NO = Verdict("accepted", 1.0, "ok", cached=True), Verdict("rejected", 0.0, "wrong")
LOST, CUT = Verdict("undecided", None, "crashed"), Verdict("rejected", 0.0, "truncated")


def group(name: str, *members: tuple[str, FinishReason, Verdict | None, float | None]) -> GroupReceipt:
    answers = tuple(answer(text, i, finish=reason) for i, (text, reason, _, _) in enumerate(members))
    rewards: tuple[Reward | None, ...] = tuple(
        None if v is None else (SpanReward(0, 2, v), SpanReward(1, 2, 9.0, channel="advantage")) for *_, v in members
    )
    return receipt(Group(Prompt(name, text=name), answers, tuple(v for _, _, v, _ in members), rewards))


GROUPS = [
    group("a", ("x", "stop", YES, 1.0), ("xyz", "length", CUT, 0.0)),
    group("b", ("x", "stop", LOST, None), ("x", "stop", NO, 0.0)),
]


def test_figures_by_hand() -> None:
    found = describe_groups(GROUPS)
    assert found == pytest.approx(
        {
            "truncated_share": 1 / 4,
            "unique_share": 3 / 4,  # (a, x), (a, xyz), (b, x)
            "length_mean": 6 / 4,
            "length_max": 3.0,
            "undecided_share": 1 / 4,
            "unrewarded_share": 0.0,
            "cached_share": 1 / 4,
            "reason/ok": 1 / 4,
            "reason/wrong": 1 / 4,
            "reason/truncated": 1 / 4,
            "reason/crashed": 1 / 4,
            "pass_rate": 1 / 3,
            "solved_share": 1 / 2,
            "all_accepted_share": 0.0,
            "unique_accepted": 1.0,
            "reward_mean": 1 / 3,  # the advantage channel is not a reward
            "reward_std": math.sqrt(2) / 3,  # 1, 0, 0: variance 2/9
            "reward_se": 2 / 9,  # excess of the prompts over 1/3: 1/3, -1/3; √(2/9 · 2/1) / 3
        }
    )
    assert tokens(GROUPS) == 6
    check_names(found)


def test_shares_over_nothing_are_left_out() -> None:
    found = describe_groups([group("a", ("x", "stop", LOST, None))])
    assert "pass_rate" not in found
    assert "reward_mean" not in found
    assert "cached_share" not in describe_groups([group("a", ("x", "stop", None, 1.0))])


def test_one_truncated_completion_gives_no_pass_rate_where_rewards_score() -> None:
    """Without a verifier nothing is "accepted": a pass rate of 0 next to a mean reward of 1/2 would be a wrong figure."""
    found = describe_groups([group("a", ("x", "stop", None, 1.0), ("xyz", "length", CUT, 0.0))])
    assert found["reward_mean"] == 0.5
    assert found.get("pass_rate") != 0.0
    assert found.get("solved_share") != 0.0


def test_an_environments_tokens_are_not_counted_and_the_limit_on_turns_is_one() -> None:
    segments = (Segment("prompt", 0, 1, -1), Segment("policy", 1, 2, 0), Segment("environment", 2, 9, 0))
    segments = (*segments, Segment("policy", 9, 11, 1))
    one = Trajectory(None, 0, np.zeros(11, np.int32), None, (), segments, "turns")
    found = describe_groups([receipt(Group(Prompt("a", text="a"), (one,), (CUT,), ((),)))])
    assert (found["length_mean"], found["length_max"], found["truncated_share"]) == (3.0, 3.0, 1.0)


def test_names_are_registered_with_a_meaning() -> None:
    assert all(METRICS.values())
    check_names(["loss", "seconds/rollout", "eval/pass@1", "reason/timeout", "rss_mb/learner0"])
    assert prefixed("eval", {"greedy": 1.0}) == {"eval/greedy": 1.0}


@pytest.mark.parametrize("name", ["lss", "canary/other", "lr/x", "seconds", "eval", "reason"])
def test_a_name_that_is_not_registered_cannot_be_written(name: str) -> None:
    with pytest.raises(KeyError, match="register it there"):
        check_names([name])


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_json_whatever_the_numbers_are(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "m.jsonl", 0)
    sink.write(0, {"loss": math.nan, "lr": math.inf, "kl": 0.5})
    assert read(tmp_path / "m.jsonl") == [{"step": 0, "loss": None, "lr": None, "kl": 0.5}]
    sink.close()
    with pytest.raises(KeyError):
        JsonlSink(tmp_path / "n.jsonl", 0).write(0, {"lss": 1.0})


def test_a_resumed_run_drops_the_lines_it_will_write_again(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    sink = JsonlSink(path, 0)
    for step in range(4):
        sink.write(step, {"loss": float(step)})
    sink.close()
    sink = JsonlSink(path, 2)
    sink.write(2, {"loss": 20.0})
    sink.close()
    assert [(row["step"], row["loss"]) for row in read(path)] == [(0, 0.0), (1, 1.0), (2, 20.0)]


def test_a_line_cut_off_by_a_kill_does_not_stop_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    JsonlSink(path, 1).close()
    assert read(path) == [{"step": 0, "loss": 1.0}]


def verdict(outcome: Any, assurance: str = "", seconds: float = 0.5, cached: bool = False) -> Verdict:
    score = {"accepted": 1.0, "rejected": 0.0, "undecided": None}[outcome]
    return Verdict(
        outcome, score, "r", assurance=assurance, seconds=seconds, cpu_seconds=0.1, cached=cached, queued_seconds=2.0
    )


def test_the_assurance_of_accepted_verdicts_is_shown_next_to_the_pass_rate() -> None:
    verdicts = [verdict("accepted", "kernel_replayed")] * 3 + [verdict("accepted", "axioms_checked")]
    found = assurances([*verdicts, verdict("rejected", "elaborated"), verdict("undecided")])
    assert found == {"axioms_checked": 0.25, "kernel_replayed": 0.75}
    assert "pass 0.500 (axioms_checked, kernel_replayed)" in summary(
        {"pass_rate": 0.5, **prefixed("assurance", found), "seconds/step": 1.0}
    )
    assert "pass 0.000  " in summary({"pass_rate": 0.0, "seconds/step": 1.0})


def test_costs_are_means_over_what_was_really_checked() -> None:
    group = Group(
        Prompt("p", text="p"),
        tuple(answer("x", i) for i in range(3)),
        (verdict("accepted"), verdict("rejected", seconds=1.5), verdict("rejected", cached=True)),
        (None, None, None),
    )
    found = describe_groups([receipt(group)])
    assert (found["queue_seconds"], found["check_seconds"], found["check_cpu_seconds"]) == (
        2.0,
        1.0,
        pytest.approx(0.1),
    )
    check_names(found)


def test_the_step_line_says_what_is_amiss_with_the_answers() -> None:
    metrics = {"reward_mean": 0.5, "reward_se": 0.02, "truncated_share": 0.4, "unrewarded_share": 0.25}
    assert summary(metrics).startswith("reward 0.500 ± 0.020  truncated 40%  without a reward 25%")
    assert "truncated" not in summary(metrics, truncated_above=0.4)
    assert "without" not in summary({**metrics, "unrewarded_share": 0.0})


def test_an_answer_that_no_stage_pays_is_not_one_whose_check_failed() -> None:
    found = describe_groups(
        [group("a", ("x", "stop", None, None), ("y", "stop", LOST, None), ("z", "stop", None, 1.0))]
    )
    assert (found["unrewarded_share"], found["undecided_share"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_a_group_that_was_cut_altogether_is_not_the_best_among_negative_rewards() -> None:
    def paid(name: str, finish: FinishReason, values: list[float], by_stage: tuple[float | None, ...]) -> GroupReceipt:
        members = tuple(answer("a", i, finish=finish) for i in range(2))
        spans: tuple[Reward, ...] = tuple((SpanReward(0, 2, value),) for value in values)
        return receipt(Group(Prompt(name, text="x"), members, (None, None), spans, stage_rewards={"cost": by_stage}))

    finished = paid("done", "stop", [-2.0, -4.0], (-2.0, -4.0))
    assert describe_groups([finished, paid("cut", "length", [0.0, 0.0], (None, None))])["reward_mean"] == -3.5
    # kept ones were paid by the stage, and a group alone has nothing to be compared with
    assert describe_groups([finished, paid("kept", "length", [0.0, 0.0], (0.0, 0.0))])["reward_mean"] == -1.5
    assert describe_groups([paid("cut", "length", [-1.0, -1.0], (None, None))])["reward_mean"] == -1.0


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_lines_are_not_split_within_texts(tmp_path: Path, separator: str) -> None:
    rows = [{"completion": f"a{separator}b"}, {"completion": "c"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_lines(path) == rows


def test_turns_of_an_environment_by_hand() -> None:
    def played(*failed: bool, cut: bool = False, unknown: int = 0) -> Trajectory:
        segments = [Segment("prompt", 0, 1, -1)]
        for turn, one in enumerate(failed):
            segments.append(Segment("policy", turn + 1, turn + 2, turn, "x", finish="stop", failed=one))
        if cut:
            at = len(segments)
            segments.append(Segment("policy", at, at + 1, at - 1, "x", finish="length"))
        ids = np.arange(len(segments), dtype=np.int32)
        return Trajectory(None, 0, ids, None, (), tuple(segments), "length" if cut else "done", NO, unknown)

    members = played(True, False, True, False, unknown=3), played(False, cut=True), played(cut=True)
    found = describe_groups([receipt(Group(Prompt("a", text="a"), members, (NO, NO, NO), ((), (), ())))])
    assert {key: found[key] for key in ("turns_mean", "failed_turns", "unknown_tokens")} == pytest.approx(
        {"turns_mean": 7 / 3, "failed_turns": 2 / 7, "unknown_tokens": 1.0}
    )
    assert "turns_mean" not in describe_groups(GROUPS), "nobody answered"
