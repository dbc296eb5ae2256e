"""Mutated answers through the Lean verifier: each must be decided, and none of a cheat accepted; prints JSON.

    python scripts/fuzz_lean.py                        2,500 answers, about two minutes on two cores
    python scripts/fuzz_lean.py --answers 500 --seed 7

The answers come from the test data (``tests/data/lean_answers.jsonl`` and ``lean_cheats.jsonl``) and the cases of the
gate. A mutated cheat may become a right proof by chance only where its statement is true; statements that are false
are listed as ``accepted_false`` if a proof of one is accepted. Exit status 1 if there is any such, or any undecided.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlpost.types import VerifyItem
from rlpost_verifiers.lean.conformance.gate import cases
from rlpost_verifiers.lean.statements import split_theorem
from rlpost_verifiers.lean.verifier import LeanVerifier

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
FALSE = ("False", "2 + 2 = 5", "1 = 2", "false = true", "∀ n : Nat, n = 1", "(1 : Nat) = 0", "2 ^ (2 ^ 60) = 0")
_TOKEN = re.compile(r"\s+|[\w'!?.]+|[^\w\s]")
_WORDS = re.findall(
    r"\S+",
    """
    by rfl simp simp_all decide intro exact trivial sorry cases induction constructor omega split unfold rw ▸ fun
    match with | => := : ∀ ∃ ⟨ ⟩ ( ) [ ] { } · <;> where termination_by decreasing_by mutual end namespace section
    open
    variable universe theorem def instance structure inductive class abbrev private @[simp] @[ext] set_option in
    maxRecDepth maxHeartbeats 0 1 18446744073709551616 True False Nat Nat.rec False.elim absurd nomatch nofun repeat
    first try all_goals iterate conv lhs rhs ext funext congr injection contradiction exfalso classical calc _ ?_ ?x
    +decide +contextual (config := {}) at * ← ↑ ‹True› let have show suffices from do if then else rec casesOn
    Quot.mk Quot.sound propext Classical.choice Classical.em #check -- /- -/ «x» \u200b é 𝔸 λ
""",
)


def drop(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """Without a run of tokens."""
    start = chance.randrange(len(tokens) + 1)
    return tokens[:start] + tokens[start + chance.randint(1, 4) :]


def repeat(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """One token many times."""
    place = chance.randrange(len(tokens))
    return [*tokens[:place], *[tokens[place], " "] * chance.choice((2, 5, 300)), *tokens[place:]]


def swap(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """Two tokens in each other's place."""
    first, second = chance.randrange(len(tokens)), chance.randrange(len(tokens))
    changed = list(tokens)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def insert(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """Words of Lean at some places."""
    changed = list(tokens)
    for _ in range(chance.randint(1, 5)):
        changed.insert(chance.randrange(len(changed) + 1), f" {chance.choice(_WORDS)} ")
    return changed


def splice(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """The beginning of this answer and the end of another."""
    other = _TOKEN.findall(chance.choice(others)) or [""]
    return tokens[: chance.randrange(len(tokens) + 1)] + other[chance.randrange(len(other)) :]


def nest(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """A token in many brackets."""
    place, depth = chance.randrange(len(tokens)), chance.choice((3, 50, 900))
    opening, closing = chance.choice(("()", "⟨⟩", "[]", "{}"))
    return [*tokens[:place], opening * depth, tokens[place], closing * depth, *tokens[place + 1 :]]


def cut(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """Cut off, as at the limit of tokens."""
    return tokens[: chance.randrange(len(tokens) + 1)]


def grow(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """Numbers made huge."""
    huge = chance.choice(("4294967296", "9" * 400, "2 ^ 64", "2 ^ (2 ^ 40)", "(10 ^ 9)"))
    return [huge if token.isdigit() else token for token in tokens]


def indent(tokens: list[str], chance: random.Random, others: Sequence[str]) -> list[str]:
    """Line breaks and blanks changed."""
    return [chance.choice(("\n", "\n  ", " ", "\n\n", "\r\n", "\t")) if token.isspace() else token for token in tokens]


MUTATIONS: tuple[Callable[[list[str], random.Random, Sequence[str]], list[str]], ...] = (
    *(drop, repeat, swap, insert, splice, nest, cut, grow, indent),
)


def main() -> int:
    """Verify mutated answers and print what became of them."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--answers", type=int, default=2500)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--workers", type=int, default=2)
    chosen = arguments.parse_args()
    found = fuzz(chosen.answers, chosen.seed, workers=chosen.workers)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    return int(bool(found["undecided"] or found["accepted_false"]))


def fuzz(answers: int, seed: int, **settings: Any) -> dict[str, Any]:
    """What became of so many mutated answers: outcomes, reasons, and each that should not be."""
    items = [item for item, _ in mutated(answers, seed)]
    start = time.perf_counter()
    with LeanVerifier(**{"timeout_s": 5, "wall_seconds": 300, **settings}) as verifier:
        verdicts = verifier.verify_batch(items)
    pairs = list(zip(items, verdicts, strict=True))
    undecided = [pair for pair in pairs if pair[1].outcome == "undecided"]
    false = [pair for pair in pairs if pair[1].outcome == "accepted" and pair[0].columns["statement"] in FALSE]
    return {
        "answers": len(items),
        "seconds": round(time.perf_counter() - start, 1),
        "outcomes": dict(Counter(verdict.outcome for verdict in verdicts)),
        "reasons": dict(Counter(verdict.reason for verdict in verdicts).most_common()),
        "undecided": [_shown(*pair) for pair in undecided],
        "accepted_false": [_shown(*pair) for pair in false],
    }


def mutated(answers: int, seed: int) -> list[tuple[VerifyItem, tuple[str, ...]]]:
    """So many answers, each with the names of one to three mutations; the same for the same seed."""
    chance, given = random.Random(seed), originals()
    texts = [item.text for item in given]
    found: list[tuple[VerifyItem, tuple[str, ...]]] = []
    for _ in range(answers):
        item, text = chance.choice(given), ""
        kinds = chance.choices(MUTATIONS, k=chance.choice((1, 1, 2, 3)))
        tokens = _TOKEN.findall(item.text)
        for kind in kinds:
            tokens = kind(tokens or [" "], chance, texts)
        text = "".join(tokens)
        found.append((VerifyItem(item.columns, text), tuple(kind.__name__ for kind in kinds)))
    return found


def originals() -> list[VerifyItem]:
    """The answers that are mutated."""
    items: list[VerifyItem] = []
    for row in _rows("lean_answers.jsonl"):
        stated = split_theorem(row["formal"])
        columns = {"statement": stated.statement, "binders": stated.binders, "header": stated.header}
        items.append(VerifyItem({**columns, "context": stated.context, "theorem": stated.name}, row["text"]))
    for row in _rows("lean_cheats.jsonl"):
        columns = {key: value for key, value in row.items() if key not in ("text", "cheat", "accepted", "name")}
        items.append(VerifyItem(columns, row["text"]))
    for case in cases():
        task = case.task
        if task.mode == "file":
            continue
        columns = {"statement": task.statement, "binders": task.binders, "header": task.header, "mode": "proof"}
        items.append(VerifyItem({**columns, "context": task.context, "theorem": task.theorem}, task.proof))
    return items


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").split("\n") if line]


def _shown(item: VerifyItem, verdict: Any) -> dict[str, Any]:
    said = [str(message)[:200] for message in verdict.evidence.get("messages", ())[:2]]
    return {**item.columns, "text": item.text[:2000], "reason": verdict.reason, "messages": said}


if __name__ == "__main__":
    sys.exit(main())
