"""Finding the final answer in a text, and refusing other text. Not covered: comparing (test_math_verifier.py)."""

from __future__ import annotations

import contextlib
import time

import pytest

from rlpost_verifiers.math.answers import AnswerSettings, NoAnswerError, final_answer, refuse_bombs, refuse_unevaluated


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}} as claimed", r"\frac{1}{2}"),
        (r"\boxed{4}, again \boxed{ 4 }", "4"),
        (r"<think>\boxed{3}</think> \boxed{4}", "4"),
        (r"an open \boxed{3 and then \boxed{4}", "4"),
        ("#### 1,234", "1,234"),
        ("The final answer is 5.\nThank you", "5"),
        ("Answer: $x = 7$", "7"),
        ("first\n3 + 4 = 7", "7"),
        ("(3 + 4) * 2 = 7 * 2 = 14", "14"),
        ("\\(12\\)", "12"),
        ("12", "12"),
    ],
)
def test_the_answer_is_found(text: str, answer: str) -> None:
    assert final_answer(text, AnswerSettings()) == answer


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("", "auto", "no_answer"),
        ("  \n ", "auto", "no_answer"),
        ("3 + 4 =", "auto", "no_answer"),
        ("4", "boxed", "no_answer"),
        (r"\boxed{}", "auto", "no_answer"),
        (r"\boxed{3} or \boxed{4}", "auto", "several_answers"),
        ("<think>4</think>", "auto", "no_answer"),
        ("1" * 201, "auto", "too_long"),
    ],
)
def test_where_there_is_none_the_reason_is_said(text: str, where: str, reason: str) -> None:
    with pytest.raises(NoAnswerError) as caught:
        final_answer(text, AnswerSettings(where=where))  # pyright: ignore[reportArgumentType]
    assert caught.value.reason == reason


def test_the_settings_are_followed() -> None:
    assert final_answer(r"\boxed{3} or \boxed{4}", AnswerSettings(several="last")) == "4"
    assert final_answer("7 * 2 = 1 4", AnswerSettings("equals", spaced_digits=True)) == "14"
    assert final_answer("7 * 2 = 1 4", AnswerSettings("equals")) == "1 4"
    assert final_answer(r"x = \boxed{3}", AnswerSettings("text")) == r"x = \boxed{3}"


@pytest.mark.parametrize("text", ["\\boxed{" * 20_000, "=" * 200_000, "answer is " * 20_000, "{" * 200_000])
def test_long_texts_take_no_time(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(NoAnswerError):
        final_answer(text, AnswerSettings())
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("12*7", "84"), ("80+4", "84"), ("90-6", "84"), ("4!", "24"), (r"\sqrt{16}", "4"), ("84/2", "42"), ("2^3", "8"),
     (r"12 \times 7", "84"), ("sum(1)", "1"), ("0.5+0", "1/2")],
)  # fmt: skip
def test_an_unevaluated_expression_is_not_an_answer(answer: str, gold: str) -> None:
    with pytest.raises(NoAnswerError, match="unevaluated"):
        refuse_unevaluated(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("-84", "84"), ("84.0", "84"), ("1/2", "0.5"), (r"\frac{1}{2}", "1/2"), (r"5 \text{ cm}", "5"), ("2^3", "2^{3}"),
     ("x+1", "1+x"), (r"\sqrt{2}", r"\sqrt{2}"), ("50%", "0.5"), ("1,234", "1234")],
)  # fmt: skip
def test_answers_in_their_usual_forms_are_let_through(answer: str, gold: str) -> None:
    refuse_unevaluated(answer, gold)


@pytest.mark.parametrize("answer", ["9**9**9", "9^{9^{9}}", "2^{100000}", "2 ^ 123456", "99999!", "3!!"])
def test_expressions_too_large_to_evaluate_are_refused(answer: str) -> None:
    with pytest.raises(NoAnswerError, match="too_big"):
        refuse_bombs(answer)


@pytest.mark.parametrize("answer", ["x^2+y^2", "x^2y^3", "x**2*y**2", "(x+1)^{2}(x-1)^{3}", "2^{10}", "10^6", "5!"])
def test_ordinary_powers_are_let_through(answer: str) -> None:
    refuse_bombs(answer)
