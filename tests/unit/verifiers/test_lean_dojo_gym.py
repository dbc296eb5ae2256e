"""The tactic environments without Lean: verdicts into states, memory, and failures of a Dojo.

Not covered: Lean itself (`tests/contract/test_lean_gym.py`) and a Dojo with a real process, which takes a
toolchain; the one here follows `lean_dojo.Dojo`'s interface and raises LeanDojo's own errors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rlpost.errors import DataError, DeadlineError, InfrastructureError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.dojo.gym import ReplayGym, TacticGym
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
from rlpost_verifiers.lean.dojo.live import DojoGym
from rlpost_verifiers.lean.task import Mode, ProofTask

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lean_dojo") is None, reason="pip install 'rlpost[dojo]'")

TASK = ProofTask("True", "sorry", name="t")
OPEN = "error at 1:0: unsolved goals\n⊢ True"


def rejected(*messages: str, reason: str = "failed", **evidence: Any) -> Verdict:
    return Verdict("rejected", 0.0, reason, evidence={"messages": list(messages), **evidence})


class Scripted:
    """A backend with scripted verdicts by a proof's last line; for other lines a goal stays open."""

    modes: frozenset[Mode] = frozenset({"proof"})
    fingerprint = "scripted"

    def __init__(self, **verdicts: Verdict) -> None:
        self.proofs: list[str] = []
        self.closed = 0
        self._verdicts = verdicts

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        self.proofs += [task.proof for task in tasks]
        return [self._verdicts.get(task.proof.split("\n")[-1].strip(" ()"), rejected(OPEN)) for task in tasks]

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        return [None for _ in tasks]

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("make", [lambda: ReplayGym(Scripted()), lambda: DojoGym(lambda task: FakeDojo({}))])
def test_both_environments_are_used_alike(make: Callable[[], TacticGym]) -> None:
    dojo = import_lean_dojo()
    with make() as gym:
        state = gym.reset(TASK)
        assert state.pp == "⊢ True"
        assert isinstance(gym.run_tac(state, "sorry"), dojo.LeanError)


def test_each_step_is_a_group_of_its_own_after_those_before() -> None:
    backend = Scripted()
    gym = ReplayGym(backend)
    state: Any = gym.reset(TASK)
    state = gym.run_tac(state, "  cases h with\n  | inl a => skip\n")
    gym.run_tac(state, "skip")
    assert backend.proofs[-1] == "by\n  skip\n  (cases h with\n   | inl a => skip)\n  (skip)"


def test_a_finished_proof_is_one_the_backend_accepted() -> None:
    dojo = import_lean_dojo()
    gym = ReplayGym(Scripted(trivial=Verdict("accepted", 1.0, "proved"), rfl=rejected(reason="axiom")))
    state = gym.reset(TASK)
    assert isinstance(gym.run_tac(state, "trivial"), dojo.ProofFinished)
    assert gym.run_tac(state, "rfl") == dojo.LeanError("axiom")


def test_goals_come_whole_from_the_evidence_where_it_has_them() -> None:
    goals = ["case a\n⊢ p", "case b\n⊢ q"]
    gym = ReplayGym(Scripted(split=rejected("error at 1:0: unsolved goals\ncase a\n⊢", goals=goals)))
    state: Any = gym.run_tac(gym.reset(TASK), "split")
    assert (state.pp, state.num_goals) == ("case a\n⊢ p\n\ncase b\n⊢ q", 2)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (["error at 3:2: unsolved goals\n⊢ p", OPEN], "unsolved goals\n⊢ p"),
        (["error at 3:2: unsolved goals\n⊢ p"], "unsolved goals\n⊢ p"),
        (["error at 1:0: something else"], "something else"),
        ([OPEN, "error at 4:2: unexpected token"], "unexpected token"),
        (["Lean could not elaborate the proof"], "Lean could not elaborate the proof"),
        ([], "failed"),
        (["error at 1:0: unsolved goals\n⊢ '⊢'"], "LeanDojo cannot parse the goals: ⊢ '⊢'"),
    ],
)
def test_only_goals_left_by_the_whole_block_make_a_state(messages: list[str], error: str) -> None:
    gym = ReplayGym(Scripted(bad=rejected(*messages, reason="failed")))
    assert gym.run_tac(gym.reset(TASK), "bad") == import_lean_dojo().LeanError(error)


@pytest.mark.parametrize("reason", ["crashed", "unavailable", "timeout"])
def test_an_undecided_check_is_never_an_error_of_the_tactic(reason: str) -> None:
    backend = Scripted(bad=Verdict("undecided", None, reason, evidence={"messages": ["gone\naway"]}))
    gym = ReplayGym(backend)
    state = gym.reset(TASK)
    for _ in range(2):
        with pytest.raises(
            InfrastructureError, match=rf"task 't', step 1: Lean could not judge \({reason}: gone away\)"
        ):
            gym.run_tac(state, "bad")
    assert len(backend.proofs) == 3, "what was not decided must not be remembered"


def test_errors_crowded_out_by_warnings_leave_the_step_undecided() -> None:
    gym = ReplayGym(Scripted(bad=rejected(*["warning at 3:2: w"] * 8, goals=["⊢ p"])))
    with pytest.raises(InfrastructureError, match="the errors were cut off"):
        gym.run_tac(gym.reset(TASK), "bad")


def test_a_statement_without_meaning_is_an_error_of_the_data() -> None:
    verdict = Verdict(
        "undecided", None, "statement_mismatch", evidence={"messages": ["task 't': unknown identifier x"]}
    )
    with pytest.raises(DataError, match=r"^task 't': unknown identifier x$"):
        ReplayGym(Scripted(skip=verdict)).reset(TASK)
    with pytest.raises(DataError, match=r"task 't': Lean shows no goal for 'True': unknown identifier x"):
        ReplayGym(Scripted(skip=rejected("error at the theorem: unknown identifier x"))).reset(TASK)
    with pytest.raises(UserError, match="mode 'file' has no goals"):
        ReplayGym(Scripted()).reset(ProofTask("True", "", mode="file"))


@pytest.mark.parametrize(
    ("tactic", "error"),
    [
        ("sorry", "'sorry' stands for a missing proof"),
        ("trivial\ntheorem Y : False := X", "'theorem' starts a command"),
        ("set_option debug.skipKernelTC true in skip", "'set_option debug.skipKernelTC' may not be set"),
        ("skip -- )", "'--' opens a comment"),
        ("skip)\n  (trivial", "')' closes nothing"),
        ("skip) <;> (trivial", "')' closes nothing"),
        ("(skip", "'(' is never closed"),
        (" \n", "the tactic is empty"),
    ],
)
def test_forbidden_tactics_are_errors_that_lean_never_sees(tactic: str, error: str) -> None:
    backend = Scripted()
    gym = ReplayGym(backend)
    result: Any = gym.run_tac(gym.reset(TASK), tactic)
    assert isinstance(result, import_lean_dojo().LeanError)
    assert result.error.startswith(error)
    assert len(backend.proofs) == 1
    live = DojoGym(lambda task: FakeDojo({}))
    result = live.run_tac(live.reset(TASK), tactic)
    assert result.error.startswith(error)


def test_a_repeated_tactic_does_not_ask_the_backend_again() -> None:
    backend = Scripted(bad=rejected("error at 3:2: no"))
    gym = ReplayGym(backend)
    first = gym.reset(TASK)
    assert gym.reset(ProofTask("True", "another proof", name="t")) is first
    after: Any = gym.run_tac(first, "skip")
    assert gym.run_tac(first, " skip ") is after
    assert gym.run_tac(first, "bad") == gym.run_tac(first, "bad")
    assert (after.pp, after.id != first.id) == (first.pp, True)
    assert len(backend.proofs) == 3


def test_memory_is_bounded_and_what_was_forgotten_is_said() -> None:
    gym = ReplayGym(Scripted(), memory=3)
    first = gym.reset(TASK)
    left: Any = gym.run_tac(first, "left")
    gym.run_tac(first, "right")
    gym.run_tac(first, "exfalso")
    with pytest.raises(UserError, match=r"state 2 is unknown: .*the last 3 results; start from reset or raise memory"):
        gym.run_tac(left, "skip")
    assert gym.run_tac(first, "left") == left
    with pytest.raises(UserError, match="memory is 1"):
        ReplayGym(Scripted(), memory=1)


def test_states_of_others_are_refused() -> None:
    dojo = import_lean_dojo()
    gym = ReplayGym(Scripted())
    gym.reset(TASK)
    with pytest.raises(UserError, match="state 1 is unknown"):
        gym.run_tac(dojo.TacticState("⊢ False", 1), "skip")
    with pytest.raises(UserError, match=r"cannot be run on ProofFinished.*give a TacticState"):
        gym.run_tac(dojo.ProofFinished(1), "skip")


def test_close_closes_the_backend() -> None:
    backend = Scripted()
    with ReplayGym(backend) as gym:
        gym.reset(TASK)
    assert backend.closed == 1


class FakeDojo:
    """Follows `lean_dojo.Dojo`: entering it gives (itself, first state), then ``run_tac`` is called."""

    def __init__(self, answers: dict[str, Any], enter: Callable[[], Any] | None = None) -> None:
        self.exits = 0
        self._answers = answers
        self._enter = enter or (lambda: import_lean_dojo().TacticState("⊢ True", 0))

    def __enter__(self) -> tuple[FakeDojo, Any]:
        return self, self._enter()

    def __exit__(self, *_: object) -> None:
        self.exits += 1

    def run_tac(self, state: Any, tactic: str) -> Any:
        answer = self._answers[tactic]
        if isinstance(answer, Exception):
            raise answer
        return answer


def raiser(error: Exception) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


def test_a_dojo_answers_through_the_same_interface() -> None:
    dojo = import_lean_dojo()
    answers = {
        "skip": dojo.TacticState("⊢ True", 1),
        "trivial": dojo.ProofFinished(2),
        "rfl": dojo.LeanError("no"),
        "assumption": dojo.ProofGivenUp(),
    }
    fake = FakeDojo(answers)
    with DojoGym(lambda task: fake) as gym:
        state: Any = gym.reset(TASK)
        assert [gym.run_tac(state, tactic) for tactic in ("skip", " trivial", "rfl")] == list(answers.values())[:3]
        assert gym.run_tac(state, "assumption") == dojo.LeanError("the proof contains sorry")
        with pytest.raises(UserError, match="give a TacticState"):
            gym.run_tac(dojo.ProofFinished(2), "skip")  # pyright: ignore[reportArgumentType]
    assert fake.exits == 1
    with pytest.raises(InfrastructureError, match="start one with reset"):
        gym.run_tac(state, "skip")


def test_each_reset_opens_a_new_dojo_and_ends_the_last() -> None:
    opened: list[FakeDojo] = []

    def open_dojo(task: ProofTask) -> FakeDojo:
        opened.append(FakeDojo({}))
        return opened[-1]

    gym = DojoGym(open_dojo)
    gym.reset(TASK)
    gym.reset(TASK)
    assert [fake.exits for fake in opened] == [1, 0]
    gym.close()
    gym.close()
    assert [fake.exits for fake in opened] == [1, 1]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (("DojoTacticTimeoutError", ()), DeadlineError, "task 't': 'trivial' ran into Dojo's time limit"),
        (("DojoCrashError", ("OOM",)), InfrastructureError, "task 't': Dojo ran out of memory at 'trivial'"),
        (("DojoCrashError", ("Unexpected EOF",)), InfrastructureError, r"Dojo crashed \(Unexpected EOF\) at 'trivial'"),
    ],
)
def test_a_dojo_that_dies_is_no_error_of_the_tactic(
    error: tuple[str, tuple[str, ...]], kind: type[Exception], message: str
) -> None:
    fake = FakeDojo({"trivial": getattr(import_lean_dojo(), error[0])(*error[1])})
    gym = DojoGym(lambda task: fake)
    state = gym.reset(TASK)
    with pytest.raises(kind, match=message):
        gym.run_tac(state, "trivial")
    assert fake.exits == 1
    with pytest.raises(InfrastructureError, match="start one with reset"):
        gym.run_tac(state, "trivial")


def test_a_dojo_runs_many_tactics_one_by_one_and_keeps_what_came_before_its_end() -> None:
    dojo = import_lean_dojo()
    fake = FakeDojo({"skip": dojo.TacticState("⊢ True", 1), "trivial": dojo.DojoCrashError("OOM")})
    gym = DojoGym(lambda task: fake)
    state: Any = gym.reset(TASK)
    found: list[Any] = gym.run_tacs([(state, "skip"), (state, "sorry"), (state, "trivial"), (state, "skip")])
    assert found[0].pp == "⊢ True"
    assert isinstance(found[1], dojo.LeanError)
    assert [str(one) for one in found[2:]] == [
        "task 't': Dojo ran out of memory at 'trivial'",
        "no Dojo is running; start one with reset",
    ]
    with pytest.raises(UserError, match="give a TacticState"):
        gym.run_tacs([(state, "skip"), (found[1], "skip")])


def test_a_dojo_that_does_not_start() -> None:
    dojo = import_lean_dojo()
    for error, kind, message in (
        (dojo.DojoInitError("no ast.json"), InfrastructureError, "task 't': Dojo did not start: no ast.json"),
        (dojo.DojoTacticTimeoutError(), DeadlineError, "did not start in time"),
    ):
        gym = DojoGym(lambda task, error=error: FakeDojo({}, raiser(error)))
        with pytest.raises(kind, match=message):
            gym.reset(TASK)
        gym.close()
    fake = FakeDojo({}, lambda: dojo.CommandState(0))
    with pytest.raises(UserError, match=r"starts with CommandState.*make it from a lean_dojo\.Theorem"):
        DojoGym(lambda task: fake).reset(TASK)
    assert fake.exits == 1
