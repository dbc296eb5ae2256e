"""Rules for what a model's text may not contain, on every backend.

With Mathlib available a proof can do much more than prove: run code while it is elaborated, print anything, set
options. A model's declarations cannot change the statement, because a trusted declaration fixes it (`pin`), and Lean
reports the axioms; the embedded backend reads both from the compiled module. These rules are for the remaining risk,
code that runs at elaboration time: it could write into Lean's environment past the kernel, forge messages or touch
files. A kernel replay catches the first; no rule here is the only defence where `leanchecker` or the embedded kernel
runs. Comments, `open … in`, `where` and harmless options pass.
"""

from __future__ import annotations

import re
import unicodedata

from rlpost_verifiers.lean.source import MAX_STATEMENT_BYTES, OPTIONS, find_unreadable, shorten
from rlpost_verifiers.lean.task import Mode, ProofTask
from rlpost_verifiers.lean.text import (
    CommentError,
    Word,
    blank_comments,
    blank_strings,
    find_ambiguous,
    is_inside_name,
    words,
)

_IN_BOTH = "is not needed to prove a theorem and runs code, changes syntax or declares an axiom"
_IN_PROOF = "starts a command; a proof is one term or one 'by' block"
_META = "reaches for Lean's own machinery, which could write to the environment past the kernel"
_MISSING = "stands for a missing proof"

# Matched as whole words only: as part of a longer name ("Polynomial.eval", "mem_def") it is not a keyword.
BANNED: dict[str, tuple[str, ...]] = {
    _IN_BOTH: (
        *("axiom", "opaque", "unsafe", "partial", "meta", "extern", "implemented_by", "init_quot"),
        *("macro", "macro_rules", "syntax", "notation", "notation3", "infix", "infixl", "infixr", "prefix", "postfix"),
        *("elab", "elab_rules", "term_elab", "binder_predicate", "simproc", "dsimproc", "simproc_decl"),
        *("dsimproc_decl", "builtin_simproc", "builtin_dsimproc", "builtin_initialize", "initialize", "unif_hint"),
        *("run_cmd", "run_tac", "run_elab", "run_meta", "run_conv", "by_elab", "eval_expr", "evalExpr", "include_str"),
        *(
            "include_bytes",
            "dbg_trace",
            "native_decide",
            "sleep",
            "sudo",
            "unset_option",
            "unlock_limits",
            "prelude",
            "import",
        ),
        *("public", "add_decl_doc", "unseal", "seal", "proof_wanted", "add_aesop_rules", "tactic_extension"),
        *("deprecated_module", "recall", "library_note", "grind_pattern", "scoped_notation", "mk_simp_attribute"),
    ),
    _MISSING: ("sorry", "admit", "stop", "sorryAx"),
}
COMMANDS: tuple[str, ...] = (
    *("theorem", "lemma", "example", "def", "abbrev", "instance", "inductive", "coinductive", "structure", "class"),
    *("mutual", "namespace", "section", "end", "export", "universe", "variable", "include", "omit", "attribute"),
    *("noncomputable", "private", "protected", "nonrec", "deriving", "irreducible_def", "alias"),
)
# Matched in every part of a name.
MACHINERY: tuple[str, ...] = (
    *(
        "Lean",
        "Elab",
        "Meta",
        "Tactic",
        "Parser",
        "MetaM",
        "TacticM",
        "TermElabM",
        "CoreM",
        "CommandElabM",
        "MacroM",
        "SimpM",
        "Mathlib",
    ),
    *("Aesop", "Qq", "Linarith", "preprocessors", "IO", "EIO", "BaseIO", "System", "Simproc", "Environment"),
    *("unsafeCast", "unsafeIO", "unsafeEIO", "unsafeBaseIO", "lcProof", "lcAny", "lcUnreachable", "lcCast"),
    *("ofReduceBool", "ofReduceNat", "reduceBool", "reduceNat", "trustCompiler", "sorryAx", "native", "nativeDecide"),
    *("addDecl", "addDeclCore", "addDeclWithoutChecking", "addAndCompile", "doCheck", "thmDecl", "axiomDecl"),
    *("dbgTrace", "dbgTraceVal", "dbgTraceIfShared", "dbgSleep", "dbgStackTrace", "debug", "skipKernelTC"),
)
ATTRIBUTES: tuple[str, ...] = (
    *("simp", "local", "scoped", "ext", "refl", "symm", "trans", "congr", "gcongr", "mono", "norm_cast", "push_cast"),
    *("instance", "reducible", "irreducible", "semireducible", "inline", "elab_as_elim", "simps", "push_neg"),
)
_MARKS: dict[str, str] = {
    "«": "quotes a name, so that any text can pose as one",
    "»": "quotes a name, so that any text can pose as one",
    '"': "opens a text in which code or a comment can hide; only plain texts pass, in a proof without comments",
    "eval%": "runs code",
    "%%": "is syntax for programs that write programs",
    "`(": "is syntax for programs that write programs",
    "``": "is syntax for programs that write programs",
}
# Finds keywords that `words` would take for the end of a longer name.
_STUCK = re.compile(
    r"[0-9'!?₀-₉ₐ-ₜᵢ-ᵪ](?:"
    + "|".join(sorted({*(word for words_ in BANNED.values() for word in words_), *COMMANDS, *MACHINERY}))
    + r")(?![A-Za-z0-9_'!?])"
)
_PRINTING = re.compile(r'(?<![\w.])trace[\s(]*"')
_COMMAND_MARK = re.compile(r"#[a-z_]{3,}")
_OPEN_IN = re.compile(r"open(?:\s+scoped)?(?:\s+[\w.']+)+(?:\s*\([\w.'\s]+\))?\s+in\b")
_ATTRIBUTE_LIST = re.compile(r"\[([^\[\]]*)\]")
_ATTRIBUTE = re.compile(r"\s*-?\s*(?:(?:local|scoped)\s+)?(\w+)[\w\s()↓↑←.]*")

RULES = repr((BANNED, COMMANDS, MACHINERY, OPTIONS.pattern, ATTRIBUTES, sorted(_MARKS), _COMMAND_MARK.pattern, "set_"))
"""All rules above as text, which the fingerprint depends on."""


_HEADER_LINES = re.compile(
    r"open(?: scoped)?(?: [A-Za-z_][\w.']*)+(?: \([\w.' ]+\)| hiding(?: [\w.']+)+)?|universe(?: [A-Za-z_]\w*)+"
)
_IMPORT = re.compile(r"import[ \t]+([A-Za-z_][\w.]*)")


class FilteredError(ValueError):
    """The text must not be passed to Lean; the message says why."""


def admit(text: str, mode: Mode) -> str:
    r"""The text as Lean may see it: checked, and with blanks in place of comments.

    Lean gets the text without its comments, so that only this module decides what is a comment.

    Args:
        text: a proof, or in file mode a file without its imports.
        mode: ``proof``; the others also allow declarations, namespaces and some attributes.

    Raises:
        FilteredError: naming what is not allowed.

    >>> admit("by\n  simp -- easy", "proof")
    'by\n  simp        '
    """
    if problem := find_unreadable(text):
        raise FilteredError(problem)
    try:
        bare = blank_comments(text)
    except CommentError as error:
        raise FilteredError(str(error)) from error
    if not bare.strip():
        raise FilteredError("the proof is empty")
    if _PRINTING.search(bare):
        raise FilteredError("'trace' prints a text of the proof's own, which could pose as Lean's")
    given, bare = bare, blank_strings(bare) if bare == text else bare
    # The first quote that Lean would see is found here too, even if text after it was taken for a comment.
    if mark := next((mark for mark in _MARKS if mark in bare), None):
        raise FilteredError(f"{mark!r} {_MARKS[mark]}")
    if glued := find_ambiguous(bare):
        raise FilteredError(f"{glued!r} is a number or a character that can run into a keyword")
    if stuck := next((found for found in _STUCK.finditer(bare) if not is_inside_name(bare, found.start() + 1)), None):
        raise FilteredError(f"{stuck[0]!r} may be a keyword after the end of another word; put a blank between them")
    if command := _COMMAND_MARK.search(bare):
        raise FilteredError(f"{command[0]!r} is a command, such as #exit, which hides the rest of the file, or #eval")
    if mode == "proof" and "@[" in bare:
        raise FilteredError("'@[' starts an attribute such as @[extern] or @[macro]")
    for word in words(bare):
        _refuse_word(word, bare, mode)
    for opening in re.finditer(r"@\[", bare):
        _check_attributes(bare, opening.end() - 1)
    return given


def find_forbidden(proof: str) -> str | None:
    """Why ``proof``, one term or one ``by`` block, must not be passed to Lean, or None if it may be.

    >>> find_forbidden("by sorry")
    "'sorry' stands for a missing proof"
    >>> find_forbidden("fun _ h => h") is None
    True
    """
    try:
        admit(proof, "proof")
    except FilteredError as error:
        return str(error)
    return None


def _refuse_word(word: Word, text: str, mode: Mode) -> None:
    if part := next((part for part in word.parts if part in MACHINERY), None):
        raise FilteredError(f"{part!r} {_META}")
    if len(word.parts) > 1:
        return
    name = word.text
    if problem := _find_banned(name, mode):
        raise FilteredError(problem)
    if mode == "proof" and name == "open" and not _OPEN_IN.match(text, word.start):
        raise FilteredError("'open' without 'in' starts a command; write 'open … in'")
    if name == "set_option":
        _check_option(text[word.end :])
    if name == "attribute":
        _check_attributes(text, word.end)


def _find_banned(name: str, mode: Mode) -> str | None:
    for why, banned in BANNED.items():
        if name in banned:
            return f"{name!r} {why}"
    if name.startswith(("register_", "declare_", "set_")) and name != "set_option":
        return f"{name!r} {_IN_BOTH}"
    return f"{name!r} {_IN_PROOF}" if mode == "proof" and name in COMMANDS else None


def _check_option(rest: str) -> None:
    option = rest.split(maxsplit=1)[0] if rest.strip() else ""
    if not OPTIONS.fullmatch(option):
        raise FilteredError(f"'set_option {option}' may not be set; debug.skipKernelTC, say, switches the kernel off")


def _check_attributes(text: str, start: int) -> None:
    listed = _ATTRIBUTE_LIST.match(text[start:].lstrip())
    for entry in listed[1].split(",") if listed else [""]:
        found = _ATTRIBUTE.fullmatch(entry)
        if not found or found[1] not in ATTRIBUTES:
            raise FilteredError(f"attribute {entry.strip()!r} may not be set; use one of: {', '.join(ATTRIBUTES)}")


def find_bad_part(task: ProofTask) -> str | None:
    """Why the task's statement, binders or header are not valid text for that part, or None.

    They come from a data set and are assumed not to be hostile, so only mistakes are looked for; whether the statement
    can be elaborated is left to Lean.

    >>> find_bad_part(ProofTask("True /- p", "trivial"))
    "statement 'True /- p': it holds a comment; take it out"
    """
    for part, text in (("statement", task.statement), ("binders", task.binders)):
        problem = find_unreadable(text, MAX_STATEMENT_BYTES)
        if not unicodedata.is_normalized("NFC", text):
            problem = "it is not in Unicode normal form C; normalise it, or two look-alike names may differ"
        if "--" in text or "/-" in text:
            problem = "it holds a comment; take it out"
        single = (word.text for word in words(text) if len(word.parts) == 1)
        problem = problem or next((found for name in single if (found := _find_banned(name, "proof"))), None)
        if problem:
            return f"{part} {shorten(text)!r}: {problem}"
    try:
        _, lines = split_imports(blank_comments(task.header))
    except CommentError as error:
        return f"header {shorten(task.header)!r}: {error}"
    for line in lines.splitlines():
        option = line.split()[1:2] if line.split()[:1] == ["set_option"] else []
        if (
            line.strip()
            and not _HEADER_LINES.fullmatch(" ".join(line.split()))
            and not any(map(OPTIONS.fullmatch, option))
        ):
            return (
                f"header line {shorten(line.strip())!r}: use only 'import …', 'open …', 'universe …' or 'set_option …'"
            )
    return None


def split_imports(text: str) -> tuple[tuple[str, ...], str]:
    r"""The modules that the leading lines of a file import, and the file with blanks in place of those lines.

    >>> split_imports("import Mathlib\n\nopen Nat")
    (('Mathlib',), '\n\nopen Nat')
    """
    modules: list[str] = []
    lines = text.split("\n")
    for index, line in enumerate(lines):
        found = _IMPORT.fullmatch(line.strip())
        if not found and line.strip():
            break
        if found:
            modules.append(found[1])
            lines[index] = ""
    return tuple(modules), "\n".join(lines)
