r"""The usual forms in which texts end with their answer: each gold answer is asked in them before a run.

The ten forms of ``auto``, in one place; `conformance` asks its known answers in the same ones. Settings that read one
place only (``boxed``, ``equals``, ``text``) have the forms of that place.
"""

from __future__ import annotations

from rlpost_verifiers.math.answers import AnswerSettings

TEN = (
    r"So the result is $\boxed{ANSWER}$.",
    "\\[\n\\boxed{ANSWER}\n\\]",
    "**Final Answer**\n\\[ \\boxed{ANSWER} \\]",
    "The answer is: ANSWER",
    "**Answer:** ANSWER",
    "### Final Answer\nANSWER",
    "#### ANSWER",
    "<think>some thought</think>\n<answer>ANSWER</answer>",
    "Final Answer: The final answer is $ANSWER$. I hope it is correct.",
    "ANSWER",
)
"""Forms of ``auto``: boxed in text, displayed, and under a heading; a sentence, bold, a heading, GSM8K's mark, tags,
Minerva's ending, and the answer alone."""


def in_usual_forms(answer: str, settings: AnswerSettings) -> list[str]:
    r"""Texts that end with ``answer``, in the forms that the settings read.

    >>> in_usual_forms("4", AnswerSettings("equals"))
    ['x = 4']
    """
    if settings.where == "equals":
        return [f"x = {answer}"]
    if settings.where == "text":
        return [answer]
    forms = [form for form in TEN if settings.where == "auto" or r"\boxed" in form]
    return [form.replace("ANSWER", answer) for form in forms]
