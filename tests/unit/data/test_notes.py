"""Gold answers in prompts. Not covered: special tokens in the text of data (test_special_tokens.py)."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost.config.schema import ScoringSection
from rlpost.data.notes import gold_in_prompts
from rlpost.types import Message, Prompt


def said(text: str, columns: dict[str, Any], **settings: Any) -> str | None:
    return gold_in_prompts([Prompt("p", text=text, columns=columns)], ScoringSection(**settings), "data.train")


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("What is the capital of France? Paris is.", {"answer": "Paris"}),
        ("Answer: 123456", {"answer": 123456}),
        ("x = 0.0001 then", {"solution": 0.0001}),
        ("so it is\n\n  \\frac{1}{2}.", {"ground_truth": "\\frac{1}{2}"}),
        ("the answer is 7200 dollars", {"answer": "He earns 36 * 200.\n#### 7200"}),
        ("two  words  here", {"answer": "words here"}),
        ("Paris", {"answer": "Paris", "solution": None}),
    ],
)
def test_a_gold_answer_in_its_prompt_is_said(text: str, columns: dict[str, Any]) -> None:
    line = said(text, columns)
    assert line is not None
    assert line.startswith("data.train: 1 of 1 prompts hold their own gold answer")
    assert "'p'" in line


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("What is 12 * 3?", {"answer": "12"}),
        ("Choose (A) or (B)", {"answer": "(A)"}),
        ("Parisian food", {"answer": "Paris"}),
        ("123456789", {"answer": 123456}),
        ("None here", {"answer": None}),
        ("nan is here", {"answer": float("nan")}),
        ("['Paris']", {"answer": ["Paris"]}),
        ("True", {"answer": True}),
        ("Paris", {"city": "Paris"}),
        ("", {"answer": ""}),
        ("\ud83d is it", {"answer": "\ud83d is it"}),
    ],
)
def test_what_says_nothing_is_not_said(text: str, columns: dict[str, Any]) -> None:
    assert said(text, columns) is None


def test_the_verifiers_column_goes_first() -> None:
    gold = {"verifier": "math", "verifier_args": {"gold_key": "city"}}
    assert "column 'city'" in (said("Paris", {"city": "Paris"}, **gold) or "")
    assert said("Paris", {"city": "London", "answer": "Paris"}, **gold) is None


def test_all_messages_of_a_chat_are_looked_through_and_prompts_are_counted() -> None:
    prompts = [
        Prompt("a", messages=(Message("system", "x"), Message("user", "Rome?")), columns={"answer": "Paris"}),
        Prompt("b", messages=(Message("user", "?"), Message("assistant", "It is Paris")), columns={"answer": "Paris"}),
        Prompt("c", messages=(Message("system", "Paris"), Message("user", "?")), columns={"answer": "Paris"}),
    ]
    line = gold_in_prompts(prompts, ScoringSection(), "data.eval")
    assert line is not None
    assert line.startswith("data.eval: 2 of 3 prompts")
    assert "first prompt 'b'" in line
