"""Whether a bare proof is a term or a block of tactics, which needs its ``by``."""

from __future__ import annotations

import re
from typing import Literal

Form = Literal["any", "term", "tactic"]

_BY = re.compile(r" *by(?![\w'!?])")
# What begins a tactic and cannot begin a term.
_TACTIC = re.compile(
    r"(?:·|<;>|(?:all_goals|any_goals|apply|assumption|by_cases|by_contra|case|cases|change|classical|clear|congr|"
    r"constructor|contradiction|contrapose|conv|convert|decide|dsimp|erw|exact|exacts|exfalso|exists|ext|field_simp|"
    r"first|funext|generalize|gcongr|grind|induction|injection|interval_cases|intro|intros|iterate|left|linarith|"
    r"linear_combination|native_decide|next|nlinarith|norm_cast|norm_num|obtain|omega|on_goal|positivity|push_cast|"
    r"push_neg|rcases|refine|rename_i|repeat|revert|right|ring|ring_nf|rintro|rw|rwa|simp|simp_all|simpa|skip|solve|"
    r"specialize|split|split_ifs|subst|symm|tauto|try|unfold|use|aesop|aesop_cat|bound|calc_step|nth_rewrite|"
    r"rewrite|absurd_hyp|set|fun_prop|measurability|continuity|done|trace_state|replace|rfl'|exact_mod_cast|"
    r"apply_fun|choose|trivial|tauto_set|norm_fin|fin_cases|rotate_left|swap|pick_goal|haveI|letI)"
    r"(?![\w'!?.]))"
)


def as_proof(text: str, form: Form) -> str:
    r"""A bare proof, with its ``by`` if it is a tactic block.

    >>> as_proof("constructor\n· rfl", "any")
    'by\n  constructor\n  · rfl'
    >>> as_proof("have h := a\nh", "any")
    'have h := a\nh'
    """
    if form == "term":
        return text
    if form == "any":
        first = text.split("\n", 1)[0]
        margin = len(first) - len(first.lstrip(" "))
        heads = (line.strip() for line in text.split("\n") if line.strip() and not line.startswith(" " * (margin + 1)))
        if not any(_TACTIC.match(head) for head in heads):
            return text
    return put_by(text)


def put_by(proof: str) -> str:
    """``proof`` after a ``by`` on a line before it, unless it is empty or begins with its own."""
    if not proof or _BY.match(proof):
        return proof
    # Lean takes a tactic in the first column for the next command.
    indented = proof if proof.startswith(" ") else "\n".join(line and f"  {line}" for line in proof.split("\n"))
    return f"by\n{indented}"
