"""Demonstrations of proof repair: theorems, each with a proof that Lean rejects, its messages, and a right one.

A small model that has never seen Lean's messages cannot learn from them what to change. These rows show it: wrong
proofs are right ones with an edit, or proofs of other theorems, and the messages are those that Lean gives.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.data.prompts import fill
from rlpost.data.repair import told
from rlpost.errors import UserError
from rlpost.types import VerifyItem
from rlpost_verifiers.lean import theorems
from rlpost_verifiers.lean.problems.notation import render, tokenize
from rlpost_verifiers.lean.verifier import LeanVerifier

PROMPT = "{statement} :="
ROW_TEMPLATE = "{prompt}{proof}\n{messages}\n{statement} :="
"""The prompt of a repair row for a scratch model; that of ``data.repair`` in ``configs/lean_repair_rows_cpu.yaml``."""
TURN_TEMPLATE = "\n{messages}\n{statement} :="
"""The observation for such a model; that of ``environment.args`` in ``configs/lean_repair_turns_cpu.yaml``."""

_TRIES = 3
"""Wrong proofs that are drawn for a theorem; some of them are right after all."""
_OTHER_THEOREM = 0.25
"""Share of wrong proofs that prove another theorem."""
_ALIKE = (
    tuple(f"h{number}" for number in range(1, 6)),
    (".1", ".2"),
    ("Or.inl", "Or.inr"),
    ("p", "q", "r", "s"),
)
"""Tokens that are mistaken for each other."""


def rows(
    count: int,
    seed: int,
    share: float = 0.5,
    turns: bool = False,
    prompt: str = PROMPT,
    template: str | None = None,
    prefix: str = " ",
    max_messages: int = 1,
    max_characters: int = 200,
    workers: int = 2,
    **generated: Any,
) -> list[dict[str, Any]]:
    """The data source ``lean_repairs``: rows of `rlpost_verifiers.lean.theorems.rows`, a share of them as repairs.

    Every row has the columns ``prompt``, ``proof`` (the right one) and ``turns``, a target for ``sft.completion_key``.
    A repair also has ``failed`` and ``messages``. Without ``turns`` its prompt is the template, filled in with columns,
    ``{prompt}``, ``{proof}`` (the failed one) and ``{messages}``. With ``turns`` its prompt is that of the theorem, and
    the target goes on after the failed proof (which is shown, not learned) and the template as observation. About 10 ms
    of CPU time per repair.

    Args:
        count: number of rows.
        seed: seed of the theorems, and of what is changed in their proofs.
        share: share of rows that are repairs, 0 to 1; fewer if edits happen to leave proofs right.
        turns: repairs as dialogues.
        prompt: text of a theorem's prompt.
        template: text of a repair's prompt or observation; None: `ROW_TEMPLATE` or `TURN_TEMPLATE`.
        prefix: text before a proof in an answer, as ``sft.completion_prefix``.
        max_messages: as of `rlpost_verifiers.lean.environments.repair.LeanRepair`.
        max_characters: the same.
        workers: Lean processes.
        generated: further arguments of ``lean_theorems``.

    Raises:
        UserError: for a share outside [0, 1], or as ``lean_theorems``.
        MissingPackageError: if Lean is not installed.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share is {share!r}; give a share between 0 and 1")
    found = theorems.rows(count, seed, **generated)
    shown = template or (TURN_TEMPLATE if turns else ROW_TEMPLATE)
    plain = [{**row, "prompt": fill(prompt, row, "lean_repairs"), "turns": [row["proof"]]} for row in found]
    rng = random.Random(f"repairs {seed}")
    chosen = [number for number in range(len(plain)) if rng.random() < share]
    wrong = _rejected(plain, chosen, rng, prefix, (max_messages, max_characters), workers) if chosen else {}
    for number, (failed, messages) in wrong.items():
        row = plain[number]
        told = {**row, "proof": prefix + failed, "messages": messages}
        text = fill(shown, told, "lean_repairs")
        plain[number] = {**row, "id": f"{row['id']}+repair", "failed": failed, "messages": messages}
        if turns:
            plain[number]["turns"] = [{"content": failed, "weight": 0}, text, row["proof"]]
        else:
            plain[number]["prompt"] = text
    return plain


def _rejected(
    found: Sequence[Mapping[str, Any]],
    chosen: Sequence[int],
    rng: random.Random,
    prefix: str,
    limits: tuple[int, int],
    workers: int,
) -> dict[int, tuple[str, str]]:
    """For each chosen row a proof that Lean rejects, with what it says; without those whose edits are all right."""
    proofs = [tokenize(row["proof"]) for row in found]
    tried = [(number, VerifyItem(found[number], prefix + _wrong(proofs, number, rng)))
             for number in chosen for _ in range(_TRIES)]  # fmt: skip
    wrong: dict[int, tuple[str, str]] = {}
    with LeanVerifier(workers=workers) as verifier:
        for attempt in range(_TRIES):
            asked = [(n, item) for n, item in tried[attempt::_TRIES] if n not in wrong]
            for (number, item), verdict in zip(asked, verifier.verify_batch([item for _, item in asked]), strict=True):
                if verdict.outcome == "rejected":
                    wrong[number] = item.text.removeprefix(prefix), told(verdict.evidence["messages"], *limits)
    return dict(sorted(wrong.items()))


def _wrong(proofs: Sequence[list[str]], number: int, rng: random.Random) -> str:
    """The proof with one edit, or another theorem's proof."""
    if rng.random() < _OTHER_THEOREM:
        return render(rng.choice(proofs))
    tokens = list(proofs[number])
    place = rng.randrange(len(tokens))
    alike = [at for at, token in enumerate(tokens) if any(token in kind for kind in _ALIKE)]
    what = rng.random()
    if what < 0.7 and alike:
        place = rng.choice(alike)
        kind = next(kind for kind in _ALIKE if tokens[place] in kind)
        tokens[place] = rng.choice([other for other in kind if other != tokens[place]])
    elif what < 0.85 and len(tokens) > 1:
        del tokens[place]
    else:
        tokens.insert(place, rng.choice(tokens))
    return render(tokens)
