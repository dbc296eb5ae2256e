"""Functions and classes in a configuration's mapping. Not covered: that actors get them (tests/ray/test_notebook.py)."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from rlpost.api import configuration
from rlpost.errors import UserError
from rlpost.plugins import objects, registry, ship
from rlpost.plugins.build import build_stage
from rlpost.scoring.score import Scorer
from rlpost.trajectory import Group
from rlpost.types import Prompt, VerifyItem
from rlpost_rewards.outcome import Outcome
from rlpost_verifiers.function import FunctionVerifier
from support.trajectories import answer


def configured(**scoring: Any) -> Any:
    return configuration({"model": {"path": "m"}, "scoring": scoring})


def paid(config: Any) -> list[Any]:
    group = Group(Prompt("p", text="x"), (answer("a"), answer("bb", 1)))
    [found] = Scorer(config.scoring, ship.ship(config)).score([group])
    return [None if r is None else sum(s.value for s in r) for r in found.rewards]


def test_a_function_is_a_reward() -> None:
    factor = 2.0

    def length(completions: list[str], **_: Any) -> list[float]:
        return [factor * len(text) for text in completions]

    config = configured(rewards=[length])
    assert config.scoring.rewards[0].name.startswith("object:length")
    assert paid(config) == [2.0, 4.0]
    assert paid(configured(rewards=[{"name": length, "weight": 0.5}])) == [1.0, 2.0]
    assert configured(rewards=[length]).scoring == config.scoring


@pytest.mark.parametrize("reward", [
    lambda completions, **_: [float(len(text)) for text in completions],
    functools.partial(lambda completions, scale, **_: [scale * len(text) for text in completions], scale=1.0),
])  # fmt: skip
def test_lambdas_and_partials(reward: Any) -> None:
    assert paid(configured(rewards=[reward])) == [1.0, 2.0]


def test_two_functions_of_one_name_are_two() -> None:
    def made(value: float) -> Any:
        def same(completions: list[str], **_: Any) -> list[float]:
            return [value] * len(completions)

        return same

    first, second = made(1.0), made(2.0)
    assert paid(configured(rewards=[first, second])) == [3.0, 3.0]


def test_an_importable_one_is_named_as_a_plug_in() -> None:
    config = configured(verifier=FunctionVerifier, rewards=[{"name": Outcome}])
    assert config.scoring.verifier == "rlpost_verifiers.function:FunctionVerifier"
    assert config.scoring.rewards[0].name == "rlpost_rewards.outcome:Outcome"


def test_a_judge_among_the_arguments() -> None:
    config = configured(verifier="function", verifier_args={"function": lambda text, columns: text == "a"})
    scorer = Scorer(config.scoring, ship.ship(config))
    assert scorer.verifier is not None
    assert [v.outcome for v in scorer.verifier.verify_batch([VerifyItem({}, "a"), VerifyItem({}, "b")])] == [
        "accepted",
        "rejected",
    ]


def test_what_is_sent_holds_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(rewards=[lambda completions, **_: [1.0] * len(completions)])
    shipped, name = ship.ship(config), config.scoring.rewards[0].name
    assert set(shipped.objects) == {name}
    monkeypatch.setattr(objects, "_OBJECTS", {})
    with pytest.raises(UserError, match="was a Python object, which this process was not given"):
        registry.resolve("rewards", name)
    ship.install(shipped)
    assert build_stage(config.scoring.rewards[0]).name == "<lambda>"  # pyright: ignore[reportAttributeAccessIssue]
