"""The text side of a check: the file Lean reads, and what a proof may not contain.

Everything here is a function of strings. What a model's text may hold is in `filter`; these rules are for
the parts that come from a data set.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from rlpost.errors import DataError
from rlpost_verifiers.lean.scopes import Name, has_variables, opened_namespaces, scope_after
from rlpost_verifiers.lean.task import ProofTask

THEOREM = "X"
ASSUMED = "X.assumed"
"""An axiom that proves anything, in files that only state a theorem."""
PRELUDE = "RLPre"
MAX_PROOF_BYTES = 65536
# Nesting of 100,000 parentheses in one line costs Lean 4 s and 500 MB before it gives up; no honest proof nests so.
MAX_NESTING = 1000
MAX_STATEMENT_BYTES = 8192

FORBIDDEN_WORDS: dict[str, tuple[str, ...]] = {
    "starts another declaration, which could shadow, weaken or stand in for the theorem": (
        *("theorem", "lemma", "example", "def", "abbrev", "axiom", "opaque", "instance", "inductive", "coinductive"),
        *("structure", "class", "mutual", "initialize", "builtin_initialize", "init_quot", "gen_injective_theorems"),
        *("recall", "unif_hint", "extends"),
    ),
    "changes what notation means": (
        *("macro", "macro_rules", "syntax", "notation", "notation3", "infix", "infixl", "infixr", "prefix", "postfix"),
        *("elab", "elab_rules", "declare_syntax_cat", "syntax_abbrev", "binder_predicate", "deprecated_syntax"),
        *("register_builtin_option", "register_option", "register_tactic_tag", "tactic_extension"),
    ),
    "changes scope or imports": (
        *("namespace", "section", "end", "open", "export", "import", "prelude", "module", "universe", "variable"),
        *("include", "omit", "in_namespace", "with_weak_namespace", "with_exporting", "deprecated_module"),
    ),
    "changes attributes or options; debug.skipKernelTC switches the kernel off from inside one proof term": (
        *("set_option", "attribute", "unlock_limits", "seal", "unseal", "simproc", "dsimproc", "simproc_decl"),
        *("dsimproc_decl", "builtin_simproc", "builtin_dsimproc", "grind_pattern", "add_decl_doc", "extern"),
        *("implemented_by", "csimp", "deriving", "recommended_spelling", "register_simp_attr"),
    ),
    "is a modifier of a declaration": (
        *("unsafe", "partial", "noncomputable", "private", "protected", "public", "meta", "nonrec", "local", "scoped"),
    ),
    "attaches further declarations to the theorem": ("computed_fields",),
    "stands for a missing proof or drops the rest of one": ("sorry", "admit", "stop", "sorryAx"),
    "runs or trusts code outside the kernel": (
        *("native_decide", "native", "run_tac", "run_cmd", "run_elab", "run_meta", "by_elab", "include_str", "lcProof"),
        *("ofReduceBool", "reduceBool", "reduceNat", "dbg_trace", "dbgTrace"),
    ),
}
"""Words that no proof of a single theorem needs, keyed by what they would make possible."""

_FORBIDDEN_MARKS: dict[str, str] = {
    "#": "starts a command such as #exit, which hides the rest of the file, or #eval",
    "@[": "starts an attribute such as @[extern] or @[macro]",
    "/-": "opens a comment, which a statement may not hold",
    "-/": "closes a comment",
    "--": "opens a comment, which a statement may not hold",
    "«": "quotes a name, so that any text can pose as an identifier",
    "»": "quotes a name",
}

# Lean lexes "1axiom" as a number and then a keyword, and "endλ" as a keyword and then a symbol. The neighbours that
# make a word part of a longer identifier are therefore counted narrowly: ASCII letters and "_" before it (digits,
# quotes and other scripts do not), identifier characters after it. This can reject a name such as "h1end", but never
# lets a keyword pass.
_WORD = re.compile(
    r"(?<![A-Za-z_])(?:" + "|".join(sorted(w for ws in FORBIDDEN_WORDS.values() for w in ws)) + r")(?![A-Za-z0-9_'!?])"
)
# "0xfopen" would end a hexadecimal number in a letter and let the next keyword pass as its continuation.
_RADIX_NUMBER = re.compile(r"0[xXbBoO]")
OPTIONS = re.compile(
    r"maxHeartbeats|maxRecDepth|synthInstance\.max(?:Heartbeats|Size)|autoImplicit|relaxedAutoImplicit"
    r"|(?:weak\.)?linter\.[\w.]+|pp\.[\w.]+|backward\.[\w.]+|tactic\.hygienic|push_neg\.[\w.]+"
)
"""Options that cannot make Lean accept a wrong proof."""

_HEADER_LINE = re.compile(r"(?:open(?: scoped)?|universe)( [A-Za-z_][\w.']*)+|set_option (?P<option>[\w.]+) \w+")
_BRACKETS = {")": "(", "]": "[", "}": "{", "⟩": "⟨", "⦄": "⦃"}
_OPENING = frozenset(_BRACKETS.values())


def find_unreadable(text: str, max_bytes: int = MAX_PROOF_BYTES) -> str | None:
    """Why ``text`` must not be passed to any Lean, or None: its size, its nesting or invisible characters.

    The embedded backend checks nothing else of a file that a model writes (``mode: file``) before Lean reads it.

    >>> find_unreadable("trivial" + chr(0))
    'it contains the character U+0000, which a reader cannot see'
    """
    # First, so that a text far too long is refused without reading each character.
    if len(text) > max_bytes:
        return f"it is {len(text)} characters long; the limit is {max_bytes} bytes"
    for character in text:
        category = unicodedata.category(character)
        # Control, format, surrogate and private characters, and Unicode's line separators: invisible, or not text.
        if character != "\n" and (category[0] == "C" or category in ("Zl", "Zp")):
            return f"it contains the character U+{ord(character):04X}, which a reader cannot see"
    size = len(text.encode())
    if size > max_bytes:
        return f"it is {size} bytes long; the limit is {max_bytes}"
    depth = 0
    for character in text:
        depth += (character in _OPENING) - (character in _BRACKETS)
        if depth > MAX_NESTING:
            return f"its brackets are nested more than {MAX_NESTING} deep"
    return None


def check_statement(task: ProofTask) -> None:
    """Refuse a task whose statement, binders or header are not valid text for that part.

    A statement comes from the data set, not from the model, so a bad one is a data error and not a verdict: a verdict
    would reward or penalise every answer to it for something the model never wrote.

    Raises:
        DataError: naming the task, the part and what is wrong with it.
    """
    statement = _find_forbidden_part(task.statement) or find_open_end(task.statement)
    binders = _find_forbidden_part(task.binders) or find_loose_binder(task.binders)
    for part, text, problem in (("statement", task.statement, statement), ("binders", task.binders, binders)):
        if problem is None and not unicodedata.is_normalized("NFC", text):
            problem = "it is not in Unicode normal form C; normalise it, or two look-alike names may differ"
        if problem is not None:
            raise DataError(f"task {task.name!r}: {part} {shorten(text)!r}: {problem}")
    for line in task.header.splitlines():
        found = _HEADER_LINE.fullmatch(line.strip())
        if line.strip() and (found is None or (found["option"] and not OPTIONS.fullmatch(found["option"]))):
            raise DataError(
                f"task {task.name!r}: header line {shorten(line)!r}: "
                "use only 'open …', 'universe …' or 'set_option …' lines"
            )
    if problem := find_unreadable(task.context):
        raise DataError(f"task {task.name!r}: context {shorten(task.context)!r}: {problem}")


def build_source(task: ProofTask) -> str:
    """The file Lean checks: the prelude, the header, the context, and one theorem that is called ``X``.

    In the other modes the task's text replaces the theorem and stands in a namespace ``X`` of its own, so that none of
    its names can be one that the prelude has, or one that the kernel computes with by its name.

    >>> print(build_source(ProofTask("True", "trivial")), end="")
    prelude
    import RLPre
    theorem X : True :=
    trivial
    """
    return f"{_before_proof(task)}{task.proof}\n"


def build_diagnosis(task: ProofTask) -> str:
    """The file of `build_source` in which Lean can go on after an error, so that it says what the error is.

    For that it needs `sorryAx`, which the prelude does not declare: without it some errors of tactics are lost to
    ``internal exception``. Only the messages of this file may be used, never its outcome. Its lines after the first two
    are those of `build_source`, one further down.

    >>> print(build_diagnosis(ProofTask("True", "by simp")), end="")
    prelude
    import RLPre
    axiom sorryAx.{u} (α : Sort u) (synthetic : Bool) : α
    theorem X : True :=
    by simp
    """
    header = f"prelude\nimport {PRELUDE}\n"
    axiom = "axiom sorryAx.{u} (α : Sort u) (synthetic : Bool) : α\n"
    return f"{header}{axiom}{build_source(task).removeprefix(header)}"


def build_statement(task: ProofTask) -> str:
    """A file that Lean accepts exactly if it can elaborate the statement by itself.

    Its axiom has the name and the type that the theorem must have, compiled without any text of a proof.

    >>> print(build_statement(ProofTask("True", "trivial")), end="")
    prelude
    import RLPre
    axiom X : True
    """
    inside = f"namespace {THEOREM}\n" if task.mode != "proof" else ""
    if has_variables(task.context):
        # Which variables become arguments, Lean decides for theorems only.
        assumed = f"axiom {ASSUMED} {{p : Prop}} : p\n"
        before, after = _opening(replace(task, context="")), f"{task.context.strip()}\n"
        return f"{before}{assumed}{after}{inside}theorem {_signature(task)} := _root_.{ASSUMED}\n"
    return f"{_opening(task)}{inside}axiom {_signature(task)}\n"


def theorem_name(task: ProofTask) -> Name:
    """The full name of the theorem in the compiled module.

    >>> theorem_name(ProofTask("True", "theorem t : True := trivial", mode="declarations", theorem="t"))
    ('X', 't')
    """
    inside = () if task.mode == "proof" else (THEOREM,)
    return (*scope_after(task.context), *inside, *_local_name(task).split("."))


def own_names(task: ProofTask) -> Name:
    """The namespace in which everything that the task's text declares must lie."""
    return (*scope_after(task.context), THEOREM)


def proof_start_line(task: ProofTask) -> int:
    """The line of `build_source` on which the proof begins, counted from 1 as Lean does.

    >>> proof_start_line(ProofTask("True", "trivial"))
    4
    """
    return _before_proof(task).count("\n") + 1


def _before_proof(task: ProofTask) -> str:
    if task.mode == "proof":
        return f"{_opening(task)}theorem {_signature(task)} :=\n"
    known = opened_namespaces(task.proof) if task.mode == "declarations" else ""
    return f"{_opening(task)}{known}namespace {THEOREM}\n"


def _opening(task: ProofTask) -> str:
    parts = (f"{part.strip()}\n" for part in (task.header, task.context) if part.strip())
    return f"prelude\nimport {PRELUDE}\n{''.join(parts)}"


def _local_name(task: ProofTask) -> str:
    return task.theorem if task.mode == "declarations" else THEOREM


def _signature(task: ProofTask) -> str:
    binders = f" {task.binders}" if task.binders else ""
    return f"{_local_name(task)}{binders} : {task.statement}"


def _find_forbidden_part(text: str) -> str | None:
    return find_unreadable(text, MAX_STATEMENT_BYTES) or _find_forbidden_text(text)


def _find_forbidden_text(text: str) -> str | None:
    for mark, cheat in _FORBIDDEN_MARKS.items():
        if mark in text:
            return f"{mark!r} {cheat}"
    if number := _RADIX_NUMBER.search(text):
        return f"{number[0]!r} starts a number that is not decimal and can run into a keyword"
    if found := _WORD.search(text):
        return f"{found[0]!r} {next(cheat for cheat, words in FORBIDDEN_WORDS.items() if found[0] in words)}"
    return None


def find_open_end(statement: str) -> str | None:
    """Why the statement would not end where it seems to: a stray bracket, or a ``:=`` that starts the proof early.

    >>> find_open_end("(p → q"), find_open_end("p → q") is None
    ("'(' is never closed", True)
    """
    stack: list[str] = []
    for index, character in enumerate(statement):
        if character in _OPENING:
            stack.append(character)
        elif character in _BRACKETS and (not stack or stack.pop() != _BRACKETS[character]):
            return f"{character!r} closes nothing"
        elif statement.startswith(":=", index) and not stack:
            return "':=' outside brackets would end the statement; put that part in parentheses"
    return f"{stack[-1]!r} is never closed" if stack else None


def find_loose_binder(binders: str) -> str | None:
    """Why the binders are not brackets alone, or None.

    >>> find_loose_binder("(p : Prop) q")
    "'q' stands outside brackets; write binders as (x : T), {x : T} or [T]"
    """
    depth = 0
    for character in binders:
        if character in _OPENING:
            depth += 1
        elif depth == 0 and not character.isspace():
            return f"{character!r} stands outside brackets; write binders as (x : T), {{x : T}} or [T]"
        elif character in _BRACKETS:
            depth -= 1
    return find_open_end(binders)


def shorten(text: str, limit: int = 80) -> str:
    """A text in a message, cut after ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
