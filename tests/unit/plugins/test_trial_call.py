"""The trial of plug-ins at start: the message for each kind of mistake. Not covered here: actors (tests/ray)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.schema import RewardSpec, ScoringSection
from rlpost.errors import InfrastructureError, UserError
from rlpost.plugins.trial_call import try_stage
from rlpost.scoring.score import Scorer
from rlpost.trajectory import Group, one_turn
from rlpost.types import Prompt, SpanReward

PROMPT = Prompt("first", text="2 + 2 =", columns={"id": "first", "question": "2 + 2", "answer": "4"})

VERIFIER = """
from rlpost.types import Verdict

class Mine:
    fingerprint = "mine/1"

    def __init__(self, timeout_s=1.0):
        self.calls = 0

    def verdict(self, item):
        return Verdict("accepted", 1.0, "same") if item.text == item.columns["answer"] else Verdict("rejected", 0.0, "other")

    def verify_batch(self, items):
        {body}

    def close(self):
        pass
"""


def reward(folder: Path, text: str, **more: object) -> Scorer:
    (folder / "tried_reward.py").write_text(text)
    spec = RewardSpec(name=f"{folder}/tried_reward.py:mine", **more)  # pyright: ignore[reportArgumentType]
    return Scorer(ScoringSection(verifier=None, rewards=(spec,)))


def verifier(folder: Path, body: str) -> Scorer:
    (folder / "tried_verifier.py").write_text(VERIFIER.replace("{body}", body))
    return Scorer(ScoringSection(verifier=f"{folder}/tried_verifier.py:Mine"))


def refusal(scorer: Scorer) -> str:
    with pytest.raises(UserError) as caught:
        scorer.preflight([PROMPT], conformance=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def mine(completions):\n    return [1.0]\n", ["answered 1 values for 2 completions"]),
        ("def mine(completions):\n    return ['a', 'b']\n", ["answered 'a'; numbers or None are needed"]),
        ("def mine(completions):\n    return [float('inf')] * 2\n", ["answered inf; finite numbers"]),
        ("def mine(completions):\n    return 1.0\n", ["answered 1.0; a list with one number or None per completion"]),
        (
            "def mine(completions, solution):\n    return [1.0, 1.0]\n",
            ["wants 'solution', which the data has not; there are id, question, answer"],
        ),
        ("def mine(completions, /):\n    return [1.0, 1.0]\n", ["'completions' is positional-only", "remove the `/`"]),
        (
            "def mine(completions, **columns):\n    return [columns['answr'] for c in completions]\n",
            ["fails at ", "tried_reward.py:2", "KeyError: 'answr'; mend it there"],
        ),
        (
            "class mine:\n    needs = ()\n    def __call__(self, group):\n        return [()] * 2\n",
            ["answered 2 rewards for 3 trajectories"],
        ),
        (
            "class mine:\n    needs = ()\n    def __call__(self, group):\n        return [0.0] * 3\n",
            ["answered 0.0; None or a tuple of rlpost.types.SpanReward"],
        ),
        (
            "class mine:\n    needs = ()\n    def __call__(self, group):\n        return [()] * 3\n",
            ["it paid an undecided trajectory; where the reward is None it must stay None"],
        ),
        (
            "from rlpost.types import SpanReward\n\nclass mine:\n    needs = ()\n    def __call__(self, group):\n"
            "        return [(SpanReward(0, 99, 1.0),), (), None]\n",
            ["it paid tokens 0 to 99 of a trajectory of 2"],
        ),
        ("class mine:\n    def __call__(self, group):\n        return []\n", ["needs `needs: tuple"]),
        ("mine = 3\n", ["it is 3, which cannot be called"]),
    ],
)  # fmt: skip
def test_a_reward_that_breaks_the_contract(tmp_path: Path, text: str, parts: list[str]) -> None:
    said = refusal(reward(tmp_path, text))
    assert said.startswith(f"scoring.rewards '{tmp_path}/tried_reward.py:mine'")
    for part in [*parts, "prompt 'first'", "selfcheck.plugins=false"]:
        assert part in said, said


def test_a_reward_that_keeps_to_it_is_named_with_its_time(tmp_path: Path) -> None:
    text = "async def mine(prompts, completions, answer, **columns):\n    return [None, len(completions[1])]\n"
    said = reward(tmp_path, text, weight=2.0).preflight([PROMPT], conformance=True)
    assert said.startswith(f"no verifier; tried reward '{tmp_path}/tried_reward.py:mine' in ")
    assert said.endswith(" ms")


def test_a_stage_that_waits_for_the_learner_is_not_called(tmp_path: Path) -> None:
    text = "class mine:\n    needs = ('learner_logprobs',)\n    def __call__(self, group):\n        raise KeyError(1)\n"
    assert "tried reward" in reward(tmp_path, text).preflight([PROMPT], conformance=True)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("return [self.verdict(items[0])]", ["verify_batch answered 1 verdicts for 4 items"]),
        ("return [True for item in items]", ["answered True; a rlpost.types.Verdict is needed"]),
        ("return None", ["answered None; a list with one Verdict per item is needed"]),
        (
            "return [Verdict('accepted', float('nan'), 'x') for item in items]",
            ["tried_verifier.py:14", "ValueError", "nan is not finite"],
        ),
        ("return [Verdict('undecided', 0.0, 'x') for i in items]", ["tried_verifier.py:14", "undecided", "score 0.0"]),
        ("return [Verdict('perhaps', 1.0, 'x') for item in items]", ["outcome 'perhaps'"]),
        ("return [Verdict('rejected', 0.0, '') for item in items]", ["the reason ''"]),
        (
            "return [self.verdict(item) for item in sorted(items, key=lambda i: i.text)]",
            ["same 4 items in another order got other verdicts", "' was ", "verdicts must follow their items"],
        ),
        (
            "return [self.verdict(item) for item in items][::-1]",
            ["same 4 items in another order got other verdicts", "in the same order the same ones"],
        ),
        (  # what finishes first comes first
            "return sorted(map(self.verdict, items), key=lambda v: v.outcome)",
            ["same 4 items in another order got other verdicts", "in the same order the same ones"],
        ),
        (  # an item's verdict depends on its neighbour
            "return [Verdict('accepted', float(i == 0), 'first') for i, item in enumerate(items)]",
            ["same 4 items in another order got other verdicts", "nothing else in the batch"],
        ),
        ("return [self.verdict(item.answer) for item in items]", ["tried_verifier.py:14", "AttributeError"]),
        ("return [Verdict('undecided', None, 'crashed') for i in items]", ["crashed on each of 4 harmless answers"]),
    ],
)
def test_a_verifier_that_breaks_the_contract(tmp_path: Path, body: str, parts: list[str]) -> None:
    said = refusal(verifier(tmp_path, body))
    assert said.startswith(f"scoring.verifier '{tmp_path}/tried_verifier.py:Mine'")
    for part in [*parts, "prompt 'first'", "selfcheck.plugins=false"]:
        assert part in said, said


def test_a_verifier_without_its_verbs(tmp_path: Path) -> None:
    (tmp_path / "bare_verifier.py").write_text("class Bare:\n    fingerprint = 'bare/1'\n")
    said = refusal(Scorer(ScoringSection(verifier=f"{tmp_path}/bare_verifier.py:Bare")))
    assert "has no verify_batch, close; see rlpost.protocols.Verifier" in said


@pytest.mark.parametrize(
    "body",
    [
        "return [self.verdict(item) for item in items]",
        "return [Verdict('undecided', None, 'unavailable') for item in items]",
        # random scores: no two calls agree, which must not be taken for a wrong order
        "import random; return [Verdict('rejected', random.random(), 'x') for item in items]",
    ],
)
def test_a_verifier_that_keeps_to_it(tmp_path: Path, body: str) -> None:
    said = verifier(tmp_path, body).preflight([PROMPT], conformance=True)
    assert said.startswith(f"mine/1; tried verifier '{tmp_path}/tried_verifier.py:Mine' in ")


def test_a_verifier_whose_verdicts_are_shuffled_or_random_is_said_to_be_one_of_the_two(tmp_path: Path) -> None:
    shuffled = "import random; found = [self.verdict(item) for item in items]; random.shuffle(found); return found"
    scores = "import random; return [Verdict('rejected', random.random(), 'x') for item in items]"
    for number, body in enumerate((shuffled, scores)):
        (tmp_path / str(number)).mkdir()
        random.seed(3)
        said = verifier(tmp_path / str(number), body).preflight([PROMPT], conformance=True)
        assert "; the same items got different verdicts (" in said
        assert said.endswith("): it mixes them up, or is not deterministic")
        assert "\n" not in said


def test_an_item_that_is_undecided_in_one_call_is_not_compared(tmp_path: Path) -> None:
    """Its machine may have stalled."""
    body = (
        "self.calls += 1; late = self.calls % 2; "
        "return [Verdict('undecided', None, 'late') if late and item.text == '4' else self.verdict(item) for item in items]"
    )
    said = verifier(tmp_path, body).preflight([PROMPT], conformance=True)
    assert said.endswith(" ms")


def test_a_function_that_fails_on_everything_is_no_verifier(tmp_path: Path) -> None:
    (tmp_path / "judging.py").write_text("def judge(text, columns):\n    return columns['solution'] == text\n")
    arguments = {"function": f"{tmp_path}/judging.py:judge"}
    said = refusal(Scorer(ScoringSection(verifier="function", verifier_args=arguments)))
    assert "crashed on each of 4 harmless answers (KeyError: 'solution')" in said


def test_the_trial_can_be_left_out(tmp_path: Path) -> None:
    scorer = reward(tmp_path, "def mine(completions):\n    return [1.0]\n")
    assert scorer.preflight([PROMPT], conformance=True, trials=False) == "no verifier"


def test_a_constructor_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("class Made:\n    def __init__(self, size):\n        self.size = int(size)\n")
    name = f"{tmp_path}/made.py:Made"
    with pytest.raises(UserError, match=r"cannot take {'sise': 1} \(missing a required argument: 'size'\)"):
        Scorer(ScoringSection(verifier=name, verifier_args={"sise": 1}))
    with pytest.raises(UserError, match=r"fails at .*made\.py:3 \(ValueError: invalid literal"):
        Scorer(ScoringSection(verifier=name, verifier_args={"size": "x"}))


def test_what_fails_during_a_run_is_named_with_its_line_and_is_not_the_inputs_fault(tmp_path: Path) -> None:
    """Not a `UserError`: a run that ends for another reason than its input keeps its progress."""
    scorer = reward(tmp_path, "def mine(completions):\n    return [1 / len(c) for c in completions]\n")
    with pytest.raises(
        InfrastructureError, match=r"reward 'mine' fails on prompt 'first' at .*tried_reward\.py:2 \(ZeroDivisionError"
    ):
        scorer.score([Group(PROMPT, (one_turn((1,), (1,)),))])


def test_a_stage_that_reads_character_spans_is_tried_with_them() -> None:
    class First:
        needs = ("offsets",)

        def __call__(self, group: Group) -> list[Any]:
            ends = [int(one.turns[0].offsets[:, 1].max()) for one in group.trajectories]  # type: ignore[index]
            return [
                None if r is None else (SpanReward(0, 1, float(e)),) for r, e in zip(group.rewards, ends, strict=True)
            ]

    assert try_stage(First(), "mine", PROMPT, judged=True) > 0.0
    First.needs = ()  # type: ignore[assignment]
    with pytest.raises(UserError, match="'NoneType' object is not subscriptable"):
        try_stage(First(), "mine", PROMPT, judged=True)
