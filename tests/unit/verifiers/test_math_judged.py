"""Right and wrong answers as models write them, by form, judged as a careful reader does; and the same in other endings.

The rows are data: tests/data/math_answers.jsonl was written before the rules, math_answers_attack.jsonl against them;
`scripts/bench_math_answers.py` compares both with plain math-verify.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlpost.errors import DataError
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.math.answers import AnswerSettings
from rlpost_verifiers.math.forms import in_usual_forms
from rlpost_verifiers.math.verifier import MathVerifier

pytest.importorskip("math_verify")

DATA = Path(__file__).parents[2] / "data"
ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for name in ("math_answers.jsonl", "math_answers_attack.jsonl")
    for line in (DATA / name).read_text(encoding="utf-8").splitlines()
]
FORMS = sorted({row["form"] for row in ROWS})


@pytest.fixture(scope="module")
def math() -> Iterator[MathVerifier]:
    with MathVerifier(timeout_s=10) as verifier:
        yield verifier


def test_the_set_is_what_it_says() -> None:
    wanted = [row["want"] for row in ROWS]
    assert len(ROWS) >= 1200
    assert abs(wanted.count("right") - wanted.count("wrong")) < 0.1 * len(ROWS)
    first = [row for row in ROWS if not row["form"].startswith("attack")]
    assert min(sum(row["form"] == form for row in first) for form in {row["form"] for row in first}) >= 10


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_judged_as_a_reader_judges_them(math: MathVerifier, form: str) -> None:
    rows = [row for row in ROWS if row["form"] == form and row["want"] != "refused"]
    verdicts = math.verify_batch([VerifyItem({"answer": row["gold"]}, row["text"]) for row in rows])
    found = {"accepted": "right", "rejected": "wrong", "undecided": "undecided"}
    differ = [
        (row["gold"], row["text"], row["want"], verdict.reason, verdict.evidence)
        for row, verdict in zip(rows, verdicts, strict=True)
        if found[verdict.outcome] != row["want"]
    ]
    assert differ == []


def test_every_gold_answer_is_taken_or_refused_before_the_start(math: MathVerifier) -> None:
    math.check_prompts(
        [Prompt(f"p{at}", text="x", columns={"answer": row["gold"]}) for at, row in enumerate(ROWS) if _taken(row)]
    )
    for row in ROWS:
        if row["want"] == "refused":
            with pytest.raises(DataError, match="prompt 'bad'"):
                math.check_prompts([Prompt("bad", text="x", columns={"answer": row["gold"]})])


def test_the_verdict_does_not_depend_on_the_ending(math: MathVerifier) -> None:
    items, wanted = [], []
    for row in ROWS[::3]:
        boxed = re.fullmatch(r"\\boxed\{(.*)\}", row["text"], re.DOTALL)
        if boxed is None or not _taken(row) or r"\boxed" in boxed[1] or "answer is" in boxed[1] or len(boxed[1]) > 150:
            continue
        for text in in_usual_forms(boxed[1], AnswerSettings())[:-1]:
            items.append(VerifyItem({"answer": row["gold"]}, text))
            wanted.append("accepted" if row["want"] == "right" else "rejected")
    verdicts = math.verify_batch(items)
    assert len(items) > 2000
    assert [
        (item.columns["answer"], item.text, verdict.reason)
        for item, verdict, want in zip(items, verdicts, wanted, strict=True)
        if verdict.outcome != want
    ] == []


def _taken(row: dict[str, Any]) -> bool:
    return row["want"] != "refused"
