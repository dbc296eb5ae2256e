"""Episodes with scripted engines and environments. Not covered: environments in actors (tests/ray), real engines."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rlpost.algorithms.credit import train_samples
from rlpost.errors import InfrastructureError
from rlpost.learner.packing import denominators
from rlpost.protocols import GenerateRequest, GroupRequest, Observation, Reply, SamplingSettings, Turn
from rlpost.rollout.environments import EnvironmentHost
from rlpost.rollout.episode import Budget, complete, each, stream
from rlpost.rollout.sampling import requests, turn_seed
from rlpost.trajectory import Receipt, Ticket, Trajectory
from rlpost.types import Denominators, Message, SpanReward, Verdict, WeightManifest, WeightUpdate
from support.fakes import CharCodec, FakeEngine, LocalEnvironments
from support.trajectories import answer, tokenized

SETTINGS = SamplingSettings(max_tokens=8)
GOOD = Verdict("accepted", 1.0, "ok")


class Counting:
    """Ends after ``turns`` turns; pays the number of the turn; its observations name the turn."""

    def __init__(self, turns: int = 3, opening: str | None = None) -> None:
        self.turns, self.opening, self.closed = turns, opening, 0

    def begin(self, row: Mapping[str, Any], seed: int) -> Observation | None:
        self.seed = seed
        return self.opening

    def reply(self, turn: Turn) -> Reply:
        done = turn.number + 1 == self.turns
        return Reply(None if done else f"<{turn.number}>", done, float(turn.number), GOOD if done else None)

    def close(self) -> None:
        self.closed += 1


def words(context: str, source: random.Random) -> str:
    return source.choice(["ab", "c"])


def play(
    environment: Any,
    engine: FakeEngine | None = None,
    budget: Budget | None = None,
    group: int = 2,
    settings: SamplingSettings = SETTINGS,
    **options: Any,
) -> list[Trajectory]:
    """The group of one prompt; ``environment`` makes an environment."""
    asked = requests([tokenized("p", [80])], run_seed=3, step=0, group_size=group)
    calls = LocalEnvironments(EnvironmentHost(environment)) if callable(environment) else environment
    found = stream(
        engine or FakeEngine(words), asked, settings, CharCodec(), environments=calls,
        budget=budget or Budget(5, 64, 16), **options,
    )  # fmt: skip
    [[(_, members)]] = list(found)
    return list(members)


def shape(trajectory: Trajectory) -> list[tuple[str, int, str]]:
    return [(segment.origin, segment.turn, segment.text) for segment in trajectory.segments]


def test_one_turn_is_the_prompt_and_one_policy_segment() -> None:
    asked = requests([tokenized("p", [80])], run_seed=3, step=0, group_size=2)
    [[(place, members)]] = list(stream(FakeEngine(words), asked, SETTINGS, CharCodec(), offsets=True))
    assert (place, [member.index for member in members]) == (0, [0, 1])
    for member, seed in zip(members, asked[0].seeds, strict=True):
        text = words("P", random.Random(seed))
        assert shape(member) == [("prompt", -1, ""), ("policy", 0, text)]
        assert member.token_ids.tolist() == [80, *map(ord, text), 0]
        assert (member.token_ids.dtype, member.logprobs.dtype) == (np.int32, np.float32)  # type: ignore[union-attr]
        assert member.versions == ((0, 1, member.length),)
        assert member.turns[0].offsets.tolist()[: len(text)] == [[i, i + 1] for i in range(len(text))]  # type: ignore
        assert (member.status, member.verdict, member.ticket) == ("done", None, None)


def test_a_dialogue_of_one_turn_is_the_single_turn_run() -> None:
    asked = requests([tokenized("p", [80]), tokenized("q", [81])], run_seed=3, step=0, group_size=4)
    alone = dict(each(stream(FakeEngine(words), asked, SETTINGS, CharCodec())))
    calls = LocalEnvironments(EnvironmentHost(lambda: Counting(1)))
    played = dict(
        each(stream(FakeEngine(words), asked, SETTINGS, CharCodec(), environments=calls, budget=Budget(1, 8, 16)))
    )
    for place, members in alone.items():
        for one, other in zip(members, played[place], strict=True):
            assert one.token_ids.tobytes() == other.token_ids.tobytes()
            assert np.array_equal(one.logprobs, other.logprobs, equal_nan=True)  # type: ignore[arg-type]
            assert (one.versions, one.status, one.text) == (other.versions, other.status, other.text)


def test_turns_alternate_with_observations_and_only_sampled_tokens_have_log_probabilities() -> None:
    one, _ = play(lambda: Counting(3))
    texts = [segment.text for segment in one.turns]
    assert shape(one) == [
        ("prompt", -1, ""), ("policy", 0, texts[0]), ("environment", 0, "<0>"), ("policy", 1, texts[1]),
        ("environment", 1, "<1>"), ("policy", 2, texts[2]),
    ]  # fmt: skip
    assert [turn.reward for turn in one.turns] == [0.0, 1.0, 2.0]
    assert one.verdict == GOOD
    sampled = "".join(f"{text}\0" for text in texts)
    assert "".join(map(chr, one.token_ids[one.mask])) == sampled
    assert one.logprobs is not None
    assert np.array_equal(np.isfinite(one.logprobs), one.mask)
    assert sum(stop - start for _, start, stop in one.versions) == one.sampled


def test_the_context_of_a_turn_is_the_tokens_so_far_end_tokens_included() -> None:
    engine = FakeEngine(lambda context, source: "x")
    play(lambda: Counting(3), engine, group=1)
    assert engine.contexts == ["P", "Px\0<0>", "Px\0<0>x\0<1>"]


def test_every_turn_has_a_seed_of_its_own_and_siblings_share_the_environments() -> None:
    seen: list[int] = []
    made: list[Counting] = []

    def note(context: str, source: random.Random) -> str:
        seen.append(source.randint(0, 10**9))
        return "x"

    def make() -> Counting:
        made.append(Counting(2))
        return made[-1]

    play(make, FakeEngine(note))
    seeds = requests([tokenized("p", [80])], run_seed=3, step=0, group_size=2)[0].seeds
    expected = {random.Random(turn_seed(seed, turn)).randint(0, 10**9) for seed in seeds for turn in (0, 1)}
    assert set(seen) == expected
    assert len(expected) == 4
    assert [one.seed for one in made] == [seeds[0]] * 2
    assert [one.closed for one in made] == [1, 1]


def test_a_turn_never_waits_for_a_siblings() -> None:
    """One sibling writes a hundred tokens in its first turn; the other plays all its turns meanwhile."""
    order: list[str] = []

    def uneven(context: str, source: random.Random) -> str:
        return "y" * 100 if context == "P" and not order.count("P") else "x"

    class Noting(FakeEngine):
        def submit(self, asked: Any, settings: Any) -> list[int]:
            found: list[int] = []
            for request in asked:
                found += super().submit([request], settings)
                order.append(self.contexts[-1])
            return found

    long, short = play(
        lambda: Counting(3), Noting(uneven, tokens_per_step=1), Budget(5, 400, 16),
        settings=SamplingSettings(max_tokens=128),
    )  # fmt: skip
    assert order[:4] == ["P", "P", "Px\0<0>", "Px\0<0>x\0<1>"]
    assert (len(long.turns[0].text), len(short.turns)) == (100, 3)


def test_an_environment_that_never_ends_is_cut_at_the_turns() -> None:
    one, _ = play(lambda: Counting(99), budget=Budget(2, 64, 16))
    assert (one.status, len(one.turns)) == ("turns", 2)
    assert one.segments[-1].origin == "policy"


def test_a_turn_cut_at_its_tokens_ends_the_trajectory_as_truncated() -> None:
    one, _ = play(lambda: Counting(3), FakeEngine(lambda context, source: "z" * 20))
    assert (one.status, one.sampled, one.turns[0].finish) == ("length", 8, "length")


def test_the_trajectorys_tokens_are_a_limit_on_the_next_turn_too() -> None:
    # P, then x end < 0 > x end: seven tokens of eight, which leaves one for the second observation
    one, _ = play(lambda: Counting(3), FakeEngine(lambda context, source: "x"), Budget(9, 8, 16))
    assert (one.status, one.length) == ("length", 1 + 8)
    assert (one.segments[-1].origin, one.segments[-1].finish) == ("environment", "length")
    cut, _ = play(lambda: Counting(3), FakeEngine(lambda context, source: "xx"), Budget(9, 8, 16))
    assert (cut.status, cut.length, cut.turns[-1].finish) == ("length", 1 + 8, "length")


def test_a_long_observation_is_cut_and_marked() -> None:
    class Talkative(Counting):
        def reply(self, turn: Turn) -> Reply:
            return Reply("o" * 100)

    one, _ = play(Talkative, budget=Budget(3, 64, 5))
    observations = [segment for segment in one.segments if segment.origin == "environment"]
    assert [(o.stop - o.start, o.finish) for o in observations] == [(5, "length")] * 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: "text", "reply gave 'text'; a rlpost.protocols.Reply is needed"),
        (lambda: Reply(7), "text or a list of rlpost.types.Message is needed"),  # type: ignore[arg-type]
        (lambda: Reply(), "neither an observation nor done=True"),
        (lambda: Reply("x", reward=float("nan")), "a finite number or None is needed"),
        (lambda: Reply("x", verdict="good"), "a rlpost.types.Verdict or None is needed"),  # type: ignore[arg-type]
        (lambda: Reply([Message("user", "x")]), "answer with text"),
    ],
)
def test_an_environment_that_fails_leaves_its_trajectory_undecided_and_the_others_alone(answer: Any, said: str) -> None:
    class Failing(Counting):
        def reply(self, turn: Turn) -> Reply:
            return super().reply(turn) if turn.text == "c" else answer()

    members = play(Failing, group=8)
    failed = [member for member in members if any(turn.text == "ab" for turn in member.turns)]
    assert 0 < len(failed) < 8
    for member in members:
        if member in failed:
            assert (member.status, member.verdict and member.verdict.outcome) == ("aborted", "undecided")
            assert said in member.verdict.evidence["messages"][0]  # type: ignore[union-attr]
        else:
            assert (member.status, member.verdict) == ("done", GOOD)


def test_an_environment_that_cannot_begin_leaves_trajectories_without_a_turn() -> None:
    class Closed(Counting):
        def begin(self, row: Mapping[str, Any], seed: int) -> Observation | None:
            raise KeyError("secret")

    one, _ = play(Closed)
    assert (one.status, one.sampled, one.turns[0].finish) == ("aborted", 0, "abort")
    assert "KeyError: 'secret'" in one.verdict.evidence["messages"][0]  # type: ignore[union-attr]


def test_an_opening_is_read_before_the_first_turn() -> None:
    engine = FakeEngine(lambda context, source: "x")
    one, _ = play(lambda: Counting(1, opening="hello"), engine)
    assert engine.contexts == ["Phello"] * 2
    assert shape(one) == [("prompt", -1, ""), ("environment", 0, "hello"), ("policy", 0, "x")]
    assert [segment.roles for segment in one.segments] == [(), ("user",), ()]


def test_unfinished_trajectories_keep_what_they_have_at_the_deadline() -> None:
    class Slow(LocalEnvironments):
        def answers(self, timeout_s: float) -> Any:
            if any(isinstance(answer, Reply) for _, answer in self._answers):
                time.sleep(0.01)
                return []
            return super().answers(timeout_s)

    one, _ = play(Slow(EnvironmentHost(lambda: Counting(3))), deadline_s=0.3)
    assert (one.status, len(one.turns), one.turns[0].finish) == ("aborted", 1, "stop")
    asked = [GroupRequest(tokenized("p", [80]), (1,), Ticket(5, "p", (1,), 0))]
    engine = FakeEngine(lambda context, source: "z" * 200, tokens_per_step=1)
    cut = next(stream(engine, asked, SamplingSettings(max_tokens=10**6), CharCodec(), deadline_s=0.0))[0][1][0]
    assert (cut.status, cut.text, cut.ticket) == ("aborted", "z" * cut.sampled, asked[0].ticket)
    assert engine.waiting == {}


def test_a_caller_that_stops_early_leaves_no_request_behind() -> None:
    engine = FakeEngine(lambda context, source: "z" * 50, tokens_per_step=1)
    found = stream(engine, requests([tokenized("p")], run_seed=1, step=0, group_size=4), SETTINGS, CharCodec())
    found.close()  # type: ignore[attr-defined]
    begun = stream(engine, requests([tokenized("p")], run_seed=1, step=0, group_size=4), SETTINGS, CharCodec())
    next(begun)
    begun.close()  # type: ignore[attr-defined]
    assert engine.waiting == {}


def test_versions_are_those_of_the_weights_that_sampled_each_token() -> None:
    class Updated(FakeEngine):
        def step(self) -> Any:
            found = super().step()
            if self.numbers == 1:
                self.apply(WeightUpdate(WeightManifest(0, self.version + 1, "full", {}, 0, {}), {}))
            return found

    one = play(lambda: Counting(2), Updated(lambda context, source: "xyz", tokens_per_step=3), group=1)[0]
    # four tokens of the first turn in two steps, an update after each; the second turn under the last version
    assert [(version, stop - start) for version, start, stop in one.versions] == [(0, 3), (1, 1), (2, 4)]
    covered = np.zeros(one.length, bool)
    for _, start, stop in one.versions:
        covered[start:stop] = True
    assert np.array_equal(covered, one.mask)


def test_single_requests_are_completed_in_order_or_aborted() -> None:
    engine = FakeEngine(lambda context, source: context * 3, tokens_per_step=1)
    asked = [GenerateRequest(np.array([ord(c)], np.int32), 10, 0) for c in "ab"]
    found = complete(engine, asked, SETTINGS, 60.0)
    assert ["".join(map(chr, c.token_ids)) for c in found] == ["aaa\0", "bbb\0"]
    late = complete(engine, asked, SETTINGS, -1.0)
    assert [(c.finish, len(c.token_ids)) for c in late] == [("abort", 0)] * 2


class Rewriting(CharCodec):
    """Every second turn is written anew, without what was said before."""

    def dialogue(self, prompt: Any) -> Any:
        codec = self

        class Anew:
            unknown = 0

            def observe(self, answer: str | None, last: int | None, observation: Any) -> tuple[np.ndarray, bool]:
                return np.array([ord(c) for c in f"Q{observation}"], np.int32), True

        return Anew() if prompt.id == "p" else super(Rewriting, codec).dialogue(prompt)


def test_a_rewritten_history_goes_on_in_a_further_sequence() -> None:
    engine = FakeEngine(lambda context, source: "x")
    asked = requests([tokenized("p", [80])], run_seed=3, step=0, group_size=1)
    calls = LocalEnvironments(EnvironmentHost(lambda: Counting(3)))
    [[(_, [one])]] = list(stream(engine, asked, SETTINGS, Rewriting(), environments=calls, budget=Budget(5, 64, 16)))
    assert engine.contexts == ["P", "Q<0>", "Q<1>"]
    assert one.sequences == ((0, 3), (3, 9), (9, 15))
    assert "".join(map(chr, one.token_ids)) == "Px\0Q<0>x\0Q<1>x\0"
    assert [(turn.turn, turn.reward) for turn in one.turns] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    samples = train_samples(one, (SpanReward(0, one.length, 1.0),), [2.0])
    assert [sample.part for sample in samples] == [0, 1, 2]
    # the credit goes to the sampled tokens of all sequences, and nothing that was written again is trained on
    assert [sample.mask.tolist() for sample in samples] == [
        [False, True, True], [False] * 4 + [True] * 2, [False] * 4 + [True] * 2,
    ]  # fmt: skip
    assert [float(sample.advantages.sum()) for sample in samples] == [4.0, 4.0, 4.0]
    assert denominators(samples, range(3), 8) == Denominators(tokens=6, sequences=1, spans=3, max_tokens=8)


def test_an_opening_that_rewrites_the_prompt_replaces_it() -> None:
    asked = requests([tokenized("p", [80])], run_seed=3, step=0, group_size=1)
    calls = LocalEnvironments(EnvironmentHost(lambda: Counting(1, opening="hello")))
    engine = FakeEngine(lambda context, source: "x")
    [[(_, [one])]] = list(stream(engine, asked, SETTINGS, Rewriting(), environments=calls, budget=Budget(5, 64, 16)))
    assert (engine.contexts, one.sequences, one.prompt_tokens) == (["Qhello"], ((0, 8),), 6)
    assert [segment.roles for segment in one.segments] == [("user",), ()]


def test_an_engine_that_serves_two_callers_at_once_is_an_error_and_not_a_loss() -> None:
    engine = FakeEngine(lambda context, source: "zzz", tokens_per_step=1)
    engine.submit([GenerateRequest(np.array([80], np.int32), 2, 0)], SETTINGS)
    with pytest.raises(InfrastructureError, match="the engine ended request 0, which was not submitted here"):
        complete(engine, [GenerateRequest(np.array([80], np.int32), 8, 0)], SETTINGS, 60.0)


def test_groups_that_end_together_are_handed_out_a_few_at_a_time_and_others_at_once() -> None:
    asked = requests([tokenized(str(i), [80 + i]) for i in range(10)], run_seed=3, step=0, group_size=2)
    together = FakeEngine(lambda context, source: "x", tokens_per_step=2)
    assert [len(groups) for groups in stream(together, asked, SETTINGS, CharCodec())] == [8, 2]
    assert [len(groups) for groups in stream(FakeEngine(words), asked, SETTINGS, CharCodec())] == [1] * 10


def test_a_history_that_grows_by_rewriting_stays_within_the_budget() -> None:
    class Growing(CharCodec):
        def dialogue(self, prompt: Any) -> Any:
            class Anew:
                said, unknown = "P", 0

                def observe(self, answer: str | None, last: int | None, observation: Any) -> tuple[np.ndarray, bool]:
                    self.said += f"{answer}{observation}"
                    return np.array([ord(c) for c in self.said], np.int32), True

            return Anew()

    class Watched(FakeEngine):
        def submit(self, asked: Any, settings: Any) -> list[int]:
            assert all(len(request.token_ids) + request.max_tokens <= 1 + 12 for request in asked)
            return super().submit(asked, settings)

    asked = requests([tokenized("p", [80])], run_seed=3, step=0, group_size=1)
    calls = LocalEnvironments(EnvironmentHost(lambda: Counting(9)))
    engine = Watched(lambda context, source: "x")
    [[(_, [one])]] = list(stream(engine, asked, SETTINGS, Growing(), environments=calls, budget=Budget(9, 12, 16)))
    # P and three times x<n> are 13 tokens: no room is left for a fourth turn
    assert (engine.contexts, one.status) == (["P", "Px<0>", "Px<0>x<1>"], "length")
    assert Receipt.of(one).contexts[:1] == Receipt.of(answer("x", prompt=[80])).contexts
