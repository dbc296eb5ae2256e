"""What the embedded Lean does not have, so that a proof that uses it is not taken for the model's mistake alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rlpost_verifiers.lean.text import blank_comments_safely

REMEDY = "use a toolchain backend (cli, repl or kimina)"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MATHLIB = _names(
    "abel abel_nf aesop apply_fun assumption' bound by_contra by_contra! by_cases! cancel_denoms cases' "
    "choose clear_ compute_degree continuity contrapose contrapose! convert convert_to conv_lhs conv_rhs congr! "
    "existsi exacts fapply fconstructor field field_simp fin_cases fun_prop gcongr group induction' infer_param "
    "interval_cases itauto lift linarith linear_combination measurability module mono monotonicity nlinarith "
    "noncomm_ring norm_num norm_num1 nth_rewrite nth_rw obviously on_goal order peel pick_goal plausible polyrith "
    "positivity push_neg qify rel refold_let rify ring ring1 ring_nf rsuffices set simp_rw slice_lhs slim_check "
    "split_ifs subsingleton swap swap_var tauto tfae_finish tfae_have trans unfold_let use use! wlog zify"
)
"""Tactics of Mathlib and of the packages under it (Batteries, Aesop)."""

CORE = _names(
    "ac_rfl apply? apply_assumption apply_rules bv_decide bv_omega cbv cutsat decreasing_tactic erw exact? fun_cases "
    "fun_induction grind grobner lia mvcgen omega rw? show_term simp_arith simp_all_arith solve_by_elim try? "
    "vcgen simp! simpa! simp_all! dsimp! simp_all? dsimp? symm_saturate extract_lets lift_lets"
)
"""Lean's own tactics whose lemmas or syntax the prelude does not have; ``omega`` alone names more than a hundred."""

_TACTIC = re.compile(
    r"(?:^|[;|·{]|\b(?:by|then|try|repeat|first|all_goals|any_goals|iterate|focus|do|at|using)|<;>|=>|\()\s*"
    r"((?:" + "|".join(sorted(map(re.escape, MATHLIB | CORE), key=len, reverse=True)) + r"))(?![\w'!?.])",
    re.MULTILINE,
)
_BY = re.compile(r"(?<![\w.])by(?![\w'!?.])")
_MISSING_NAME = re.compile(
    r"(?:[Uu]nknown (?:constant|identifier)|[Tt]he environment does not contain) [`'‘]?(?P<name>[^\s`'’,]+)"
)
# Namespaces of Lean's library and Mathlib, of which the prelude has a part or nothing.
_LIBRARY = _names(
    "Nat Int Rat Real Complex List Array Vector Option String Char Fin Finset Set Multiset Function Bool Prod Sum "
    "Subtype Equiv Std Lean Classical Decidable Quot Quotient Setoid Subsingleton Polynomial MvPolynomial Matrix ZMod "
    "Fintype Filter Topology MeasureTheory Finsupp Units Ring Group Monoid Int64 UInt64 BitVec Float Thunk Task "
    "EuclideanDomain NNReal ENNReal Ordinal Cardinal Order Submodule LinearMap Algebra Ideal Subgroup Dvd Iff And Or "
    "Not Eq Ne HEq Exists Nonempty Odd Even ℕ ℤ ℚ ℝ ℂ"
)


def prelude_lacks() -> str:
    """One line with what people look for and do not find."""
    return (
        f"the embedded Lean has none of Mathlib (norm_num, ring, linarith, …), no Int, and no {', '.join(sorted(CORE))}"
    )


def missing_tactics(proof: str) -> list[str]:
    r"""The known tactics that a proof uses and the embedded Lean does not have, in the order of their first use.

    >>> missing_tactics("by\n  intro h  -- norm_num\n  first | omega | nlinarith [h]\n  exact ring.1")
    ['omega', 'nlinarith']
    """
    bare = blank_comments_safely(proof)
    return list(dict.fromkeys(_TACTIC.findall(bare))) if _BY.search(bare) else []


def describe_missing(proof: str, said: Iterable[str]) -> list[str]:
    """Lines that say what a rejected proof uses and the embedded Lean does not have; none where nothing is known.

    Args:
        proof: the proof as Lean got it.
        said: Lean's error messages.

    >>> describe_missing("by norm_num", ["unknown tactic"])
    ["the embedded Lean has no `norm_num`, which is Mathlib's; use a toolchain backend (cli, repl or kimina)"]
    """
    found = missing_tactics(proof)
    lines: list[str] = []
    for whose, names in (
        ("Mathlib's", [n for n in found if n in MATHLIB]),
        ("Lean's", [n for n in found if n in CORE]),
    ):
        if names:
            verb = "which is" if len(names) == 1 else "which are"
            lines.append(f"the embedded Lean has no {_quoted(names)}, {verb} {whose}; {REMEDY}")
    unknown = dict.fromkeys(match["name"] for text in said for match in _MISSING_NAME.finditer(text))
    library = [name for name in unknown if name.split(".")[0] in _LIBRARY]
    if library:
        lines.append(
            f"the embedded Lean has a small part of Lean's library and none of Mathlib's, and no {_quoted(library)}; "
            f"if that exists, {REMEDY}"
        )
    return lines


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
