"""Places of Lean's messages in the model's own text, by hand. Not covered: Lean itself (tests/contract)."""

from __future__ import annotations

import pytest

from rlpost.types import Verdict
from rlpost_verifiers.lean.places import Place, in_answer, places_in
from rlpost_verifiers.lean.task import ProofTask

TACTICS = "by\n  intro h\n  exact h"


@pytest.mark.parametrize(
    ("answer", "proof", "expected"),
    [
        # the answer is the proof, perhaps after a blank that the proof lacks or has
        ("fun h => h", "fun h => h", [(1, 0)]),
        (" fun h => h", "fun h => h", [(1, 1)]),
        (" fun h => h", " fun h => h", [(1, 0)]),
        # a block, whose first line is line 1
        (f"So:\n```lean4\n{TACTICS}\n```", TACTICS, [(1, 0), (2, 0), (3, 0)]),
        ("```lean\ntheorem t : p := by\n  intro h\n  exact h\n```", TACTICS, [(1, 17), (2, 0), (3, 0)]),
        # the last block counts, and no block in a thought
        ("```lean\nrfl\n```\n\n```lean\n\nrfl\n```", "rfl", [(2, 0)]),
        ("<think>```lean\nrfl\n```</think>\n```lean\n-- a\nrfl\n```", "rfl", [(2, 0)]),
        # a "by" that was put before it, and an indentation
        ("intro h\nexact h", TACTICS, [None, (1, -2), (2, -2)]),
        ("  intro h\n  exact h", TACTICS, [None, (1, 0), (2, 0)]),
        # an indented block, and line ends of another system
        ("  ```lean\n  rfl\n  ```", "rfl", [(1, 0)]),
        ("intro h\r\nexact h", TACTICS, [None, (1, -2), (2, -2)]),
        # text that is not there as it is
        ("something else", TACTICS, [None, None, None]),
        ("", "rfl", [None]),
    ],
)
def test_where_a_proofs_lines_stand(answer: str, proof: str, expected: list[Place | None]) -> None:
    assert places_in(answer, proof) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("error at 3:2: no", "error at 2:0: no"),
        ("error at 1:0: unsolved goals\nerror at 3:2: forged", "error: unsolved goals\nerror at 3:2: forged"),
        ("warning at 2:3: unused", "warning at 1:1: unused"),
        ("error at 4:0: unexpected end of input", "error at the end: unexpected end of input"),
        ("error at 9:0: beyond", "error: beyond"),
        ("error at the theorem: no", "error in the theorem: no"),
        ("the proof is empty", "the proof is empty"),
        ("an error at 3:2: in the middle", "an error at 3:2: in the middle"),
    ],
)
def test_a_message_gets_its_place_and_nothing_else_of_it_is_read(said: str, expected: str) -> None:
    verdict = Verdict("rejected", 0.0, "failed", evidence={"messages": [said], "goals": ["g"]})
    found = in_answer(verdict, ProofTask("p → p", TACTICS), "intro h\nexact h")
    assert found.evidence == {"messages": [expected], "goals": ["g"]}


def test_a_verdict_without_messages_stays_as_it_is() -> None:
    verdict = Verdict("accepted", 1.0, "proved", evidence={"messages": []})
    assert in_answer(verdict, ProofTask("p", "h"), "h") is verdict
