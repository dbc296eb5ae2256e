"""Audits a compiled module before its theorem counts, by facts read from the file, never from Lean's messages."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from rlpost_verifiers.lean.embedded.export import export_statement, is_compiled_only
from rlpost_verifiers.lean.embedded.olean import Name, Olean, OleanError, dotted
from rlpost_verifiers.lean.messages import Ruling
from rlpost_verifiers.lean.source import PRELUDE, THEOREM

STANDARD_AXIOMS: frozenset[Name] = frozenset({("propext",), ("Quot", "sound"), ("Classical", "choice")})
"""The axioms that any Lean proof may depend on."""

# Lemmas that Lean derives on demand about a given constant, e.g. when `simp` is told to unfold it; they are
# written to the module that first asked. Each is a theorem or definition, so axioms are still counted through it.
_DERIVED = re.compile(r"eq_(\d+|def|unfold)|splitter|h?congr(_simp|_eq)?(_\d+)?|(induct|fun_cases)(_unfolding)?")
_PRIVATE = "_private"
_MAX_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a compiled module must hold.

    Attributes:
        statement: `statement_digest` of the statement compiled by itself; None where all of the text is trusted.
        theorem: full name of the theorem.
        own: the namespace of everything else that the checked text may declare.
        context: names that the task's context declares. Lean has compiled them before the checked text, and refuses
            to declare a name twice.
    """

    statement: bytes | None
    theorem: Name = (THEOREM,)
    own: Name = (THEOREM,)
    context: frozenset[Name] = frozenset()


def audit(module: Olean, prelude: Olean, wanted: Wanted) -> tuple[Ruling, tuple[str, ...]]:
    """Whether ``module`` holds one theorem that states what it should, and nothing that could make it unsound.

    Lean stops reporting after 100 errors, treats ``sorry`` as a warning and lets a file declare anything besides the
    required theorem, so the absence of errors proves nothing. The kernel's second check is not done here.

    Args:
        module: the compiled module.
        prelude: the compiled prelude, which the module may build on.
        wanted: the theorem, its statement, and what else may be declared.

    Returns:
        The ruling, and the axioms that the theorem depends on.

    Raises:
        OleanError: where the module cannot be read or mentions a constant that neither file holds.
    """
    theorem = wanted.theorem
    if theorem not in module.constants and wanted.own in module.constants:
        # A whole file may say that its X is `_root_.X`.
        theorem = wanted.own
    shown = dotted(theorem)
    if module.imports != ((PRELUDE,),):
        return _stray(f"the module imports {', '.join(map(dotted, module.imports)) or 'nothing'}"), ()
    if theorem not in module.constants:
        return Ruling("rejected", "failed", f"the compiled module holds no {shown}"), ()
    if module.constants[theorem].kind != "theorem":
        return Ruling("rejected", "failed", f"{shown} is compiled as {module.constants[theorem].kind}"), ()
    if strays := sorted(dotted(name) for name in module.constants if not _may_stand(name, module, prelude, wanted)):
        return _stray(f"the file also declares {', '.join(strays[:5])}"[:_MAX_DETAIL]), ()
    if wanted.statement is not None and statement_digest(module, theorem) != wanted.statement:
        return Ruling("rejected", "statement_mismatch", f"{shown} states something else"), ()
    axioms = axiom_closure(theorem, module, prelude)
    names = tuple(sorted(map(dotted, axioms)))
    if ("sorryAx",) in axioms:
        return Ruling("rejected", "sorry", "the proof uses sorry"), names
    if extra := sorted(map(dotted, axioms - STANDARD_AXIOMS)):
        return Ruling("rejected", "axiom", f"the proof rests on {', '.join(extra)}"), names
    return Ruling("accepted", "proved"), names


def statement_digest(module: Olean, theorem: Name = (THEOREM,)) -> bytes:
    """SHA-256 of what a theorem states in ``module``: equal for two modules exactly if the kernel sees no difference.

    The names of its universe parameters do not count, only their order.

    Constants of the module itself that the type mentions (a ``match`` in a statement compiles to one) are hashed in
    full, so that a proof cannot substitute another constant of the same name.

    Raises:
        OleanError: where the module cannot be read.
    """
    return hashlib.sha256(json.dumps(export_statement(module, theorem)).encode()).digest()


def axiom_closure(root: Name, *modules: Olean) -> frozenset[Name]:
    """Every axiom that ``root`` depends on, through the types, values and constructors of all constants it mentions.

    Raises:
        OleanError: for a constant that no module holds.
    """
    axioms: set[Name] = set()
    seen: set[Name] = set()
    stack = [root]
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        home = next((module for module in modules if name in module.constants), None)
        if home is None:
            raise OleanError(f"{dotted(name)} is used and declared nowhere")
        if home.constants[name].kind == "axiom":
            axioms.add(name)
        stack.extend(home.uses(name))
    return frozenset(axioms)


def _may_stand(name: Name, module: Olean, prelude: Olean, wanted: Wanted) -> bool:
    """Whether a declaration may accompany the theorem: its own auxiliaries, and lemmas derived from the prelude.

    Either must be a theorem or a safe definition: those the kernel can check again, one by one.
    """
    constant = module.constants[name]
    if is_compiled_only(name, constant) and name[: len(wanted.own)] == wanted.own:
        return True
    if constant.kind not in ("theorem", "definition") or not constant.safe:
        return False
    # A private name is _private.<module>.0.<name>.
    public = name[3:] if name[:1] == (_PRIVATE,) else name
    if public[: len(wanted.own)] == wanted.own or name in wanted.context:
        return True
    given = prelude.constants.keys() | wanted.context
    known = any(public[:length] in given for length in range(1, len(public)))
    return known and _DERIVED.fullmatch(str(name[-1])) is not None


def _stray(detail: str) -> Ruling:
    return Ruling("rejected", "stray_declaration", detail)
