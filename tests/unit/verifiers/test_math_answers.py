"""Finding the final answers in a text. Not covered: reading them (test_math_readings.py), judging (test_math_judged.py)."""

from __future__ import annotations

import contextlib
import time

import pytest

from rlpost_verifiers.math.answers import AnswerSettings, NoAnswerError, final_answers, refuse_bombs


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}} as claimed", r"\frac{1}{2}"),
        (r"\boxed{4}, again \boxed{ 4 }", "4"),
        (r"\boxed 7", "7"),
        (r"\fbox{7} and \boxed{\boxed{7}}", "7"),
        ("The answer is: 73", "73"),
        ("The final answer is:\n\n**42**", "42"),
        ("### Final Answer\n73", "73"),
        ("**Final Answer:** **73**", "73"),
        ("The answer is\n\\[\n18\n\\]", "18"),
        ("Final Answer: The final answer is $73$. I hope it is correct.", "73"),
        ("The answer is $24$ or $42$. I hope it is correct.", "24$ or $42"),
        ("The answer is 18. Wait, it is 19", "18. Wait, it is 19"),
        ("The answer is C because A is wrong.", "C"),
        ("<think>3</think><answer>\n4\n</answer>", "4"),
        ("<answer>4", "4"),
        ('{"answer": "\\\\frac{1}{2}"}', r"\frac{1}{2}"),
        ("4 + 5\nA: 9", "9"),
        ("x <= 5", "x <= 5"),
        ("so x != 5", "x != 5"),
        ("x = 7 or x = -7", "x = 7 or x = -7"),
        (r"\sum_{k=1}^n k", r"\sum_{k=1}^n k"),
        (".5", ".5"),
        (r"<think>\boxed{3}</think> \boxed{4}", "4"),
        (r"an open \boxed{3 and then \boxed{4}", "4"),
        ("#### 1,234", "1,234"),
        ("The final answer is 5.\nThank you", "5"),
        ("Answer: $x = 7$", "x = 7"),
        ("first\n3 + 4 = 7", "7"),
        ("(3 + 4) * 2 = 7 * 2 = 14", "14"),
        ("\\(12\\)", "12"),
        ("12", "12"),
    ],
)
def test_the_answer_is_found(text: str, answer: str) -> None:
    assert final_answers(text, AnswerSettings()) == (answer,)


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "auto", "no_answer"),
        ("  \n ", "auto", "no_answer"),
        ("3 + 4 =", "auto", "no_answer"),
        ("4", "boxed", "no_answer"),
        (r"\boxed{}", "auto", "no_answer"),
        ("".join(rf"\boxed{{{n}}}" for n in range(21)), "auto", "several_answers"),
        ("<think>4</think>", "auto", "no_answer"),
        (r"<think>so \boxed{4}", "auto", "no_answer"),
        (r"</think>4<think>5", "text", "no_answer"),
        (r"<reasoning>\boxed{4}", "boxed", "no_answer"),
        (r"\boxed{5}, no: \boxed{6", "auto", "no_answer"),
        ("<answer></answer>", "auto", "no_answer"),
        ("The answer is:", "auto", "no_answer"),
        ("1" * 201, "auto", "too_long"),
    ],
)
def test_where_there_is_none_the_reason_is_said(text: str, where: str, reason: str) -> None:
    with pytest.raises(NoAnswerError) as caught:
        final_answers(text, AnswerSettings(where=where))  # pyright: ignore[reportArgumentType]
    assert caught.value.reason == reason


def test_the_settings_are_followed() -> None:
    assert final_answers(r"\boxed{3} or \boxed{4}", AnswerSettings()) == ("3", "4")
    assert final_answers(r"\boxed{3} or \boxed{4}", AnswerSettings(several="last")) == ("4",)
    assert final_answers("7 * 2 = 1 4", AnswerSettings("equals", spaced_digits=True)) == ("14",)
    assert final_answers("7 * 2 = 1 4", AnswerSettings("equals")) == ("1 4",)
    assert final_answers(r"x = \boxed{3}", AnswerSettings("text")) == (r"x = \boxed{3}",)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000,
        "=" * 200_000,
        "answer is " * 20_000,
        "{" * 200_000,
        "<answer>" * 20_000,
        "=,,,," * 40_000,
        "x " * 100_000,
        "<think>" * 20_000,
        "answer to the question " * 10_000,
        "\\boxed{" * 100 + "}" * 100,
    ],
)
def test_long_texts_take_no_time(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(NoAnswerError):
        final_answers(text, AnswerSettings())
    assert time.process_time() - start < 2


@pytest.mark.parametrize("answer", ["9**9**9", "9^{9^{9}}", "2^{100000}", "2 ^ 123456", "99999!", "3!!"])
def test_expressions_too_large_to_evaluate_are_refused(answer: str) -> None:
    with pytest.raises(NoAnswerError, match="too_big"):
        refuse_bombs(answer)


@pytest.mark.parametrize("answer", ["x^2+y^2", "x^2y^3", "x**2*y**2", "(x+1)^{2}(x-1)^{3}", "2^{10}", "10^6", "5!"])
def test_ordinary_powers_are_let_through(answer: str) -> None:
    refuse_bombs(answer)
