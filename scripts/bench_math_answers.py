"""Prints, as JSON, how the verifier `math` and plain math-verify judge the answers under tests/data, by form.

    python scripts/bench_math_answers.py [--rows FILE ...] [--list]

Each row has a gold answer, a text as a model writes it, and the verdict of a careful reader: ``right``, ``wrong``, or
``refused`` for a gold answer that the data must not hold. For both verifiers a form counts ``agreed``,
``wrong_accepted``, ``right_rejected`` and ``undecided``. Plain math-verify is ``verify(parse(gold), parse(text))`` with
its defaults; it has no way to refuse a gold answer, so rows with ``refused`` are counted for the verifier alone.

``seconds`` compares both on the same rows in this process: the time per answer of the verifier (its comparing process
included, cache off), of math-verify, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rlpost.errors import DataError
from rlpost.types import Prompt, VerifyItem
from rlpost_verifiers.math.verifier import MathVerifier

DATA = Path(__file__).parents[1] / "tests" / "data"
FILES = [DATA / "math_answers.jsonl", DATA / "math_answers_attack.jsonl"]
KINDS = ("agreed", "wrong_accepted", "right_rejected", "undecided")


def judge(rows: list[dict[str, Any]]) -> tuple[list[str], float]:
    """Outcomes of the verifier (``refused`` where it does not take the gold answer), and seconds per answer."""
    with MathVerifier(cache_size=0) as verifier:
        verifier.verify_batch([VerifyItem({"answer": "x^2"}, "x^2")])  # the process is up, and sympy is warm
        refused = [_refuses(verifier, row["gold"]) for row in rows]
        asked = [
            VerifyItem({"answer": row["gold"]}, row["text"]) for row, no in zip(rows, refused, strict=True) if not no
        ]
        start = time.perf_counter()
        verdicts = iter(verifier.verify_batch(asked))
        seconds = (time.perf_counter() - start) / max(1, len(asked))
        return ["refused" if no else next(verdicts).outcome for no in refused], seconds


def plain(rows: list[dict[str, Any]]) -> tuple[list[str], float]:
    """Outcomes of math-verify with its defaults, and seconds per answer; ``undecided`` where it raises."""
    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    logging.disable(logging.CRITICAL)
    found: list[str] = []
    start = time.perf_counter()
    for row in rows:
        try:
            gold = parse(f"\\boxed{{{row['gold']}}}", parsing_timeout=5)
            same = verify(gold, parse(row["text"], parsing_timeout=5), raise_on_error=True)
        except (Exception, TimeoutException):
            found.append("undecided")
        else:
            found.append("accepted" if same else "rejected")
    return found, (time.perf_counter() - start) / max(1, len(rows))


def kind(want: str, outcome: str) -> str:
    """Which of `KINDS` an outcome is, given the verdict that is right."""
    if want == "refused":
        return "agreed" if outcome == "refused" else "wrong_accepted"
    if outcome in ("undecided", "refused"):
        return "undecided"
    if (outcome == "accepted") == (want == "right"):
        return "agreed"
    return "wrong_accepted" if outcome == "accepted" else "right_rejected"


def _refuses(verifier: MathVerifier, gold: Any) -> bool:
    try:
        verifier.check_prompts([Prompt("row", text="question", columns={"answer": gold})])
    except DataError:
        return True
    return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Judge the answers under tests/data")
    parser.add_argument("--rows", type=Path, nargs="+", default=[path for path in FILES if path.is_file()])
    parser.add_argument("--list", action="store_true", help="list the rows on which the verifier and the reader differ")
    args = parser.parse_args()
    rows = [json.loads(line) for path in args.rows for line in path.read_text(encoding="utf-8").splitlines()]
    ours, ours_s = judge(rows)
    judged = [row for row in rows if row["want"] != "refused"]
    theirs, theirs_s = plain(judged)
    forms: dict[str, dict[str, Counter[str]]] = {}
    for name, these, outcomes in (("rlpost", rows, ours), ("math_verify", judged, theirs)):
        for row, outcome in zip(these, outcomes, strict=True):
            for form in (row["form"], "all"):
                table = forms.setdefault(form, {"rlpost": Counter(), "math_verify": Counter()})[name]
                table[kind(row["want"], outcome)] += 1
    report: dict[str, Any] = {
        "rows": len(rows),
        "forms": {
            form: {name: {kind: counts[kind] for kind in KINDS} for name, counts in table.items()}
            for form, table in forms.items()
        },
        "seconds": {"rlpost": ours_s, "math_verify": theirs_s, "ratio": ours_s / theirs_s},
    }
    if args.list:
        report["differ"] = [
            [row["form"], row["gold"], row["text"], row["want"], outcome]
            for row, outcome in zip(rows, ours, strict=True)
            if kind(row["want"], outcome) != "agreed"
        ]
    print(json.dumps(report, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
