"""The text side of a check: the file Lean reads, what a proof may not contain, and how a proof is cut from an answer.

Everything here is a function of strings. The filter is the first of several walls and the cheapest; soundness rests
on what is found in the compiled module afterwards (`audit`), so the filter may be stricter than Lean.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from rlpost.errors import DataError
from rlpost_verifiers.lean.task import ProofTask

Extract = Literal["raw", "fence"]
Trailing = Literal["allow", "reject"]

THEOREM = "X"
PRELUDE = "RLPre"
# Nesting of 100,000 parentheses in one line costs Lean 4 s and 500 MB before it gives up; short proofs cannot nest so.
MAX_PROOF_BYTES = 8192
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
    "attaches further declarations to the theorem": ("where", "termination_by", "decreasing_by", "computed_fields"),
    "stands for a missing proof or drops the rest of one": ("sorry", "admit", "stop", "sorryAx", "exit"),
    "runs or trusts code outside the kernel": (
        *("native_decide", "run_tac", "run_cmd", "run_elab", "run_meta", "by_elab", "eval", "include_str", "lcProof"),
        *("ofReduceBool", "reduceBool", "reduceNat"),
    ),
    "prints text that could pose as Lean's verdict": ("trace", "dbg_trace", "dbgTrace"),
}
"""Words that no proof of one theorem needs, by what they would let it do."""

_FORBIDDEN_MARKS: dict[str, str] = {
    "#": "starts a command such as #exit, which hides the rest of the file, or #eval",
    "@[": "starts an attribute such as @[extern] or @[macro]",
    "/-": "opens a comment, which can swallow what follows",
    "-/": "closes a comment",
    "--": "opens a comment, which can hide text from a reader",
    "«": "quotes a name, so that any text can pose as an identifier",
    "»": "quotes a name",
}

# Lean lexes "1axiom" as a number and then a keyword, and "endλ" as a keyword and then a symbol. The neighbours that
# make a word part of a longer identifier are therefore counted narrowly: ASCII letters and "_" before it (digits,
# quotes and other scripts do not), identifier characters after it. This rejects names such as "h1end", never less.
_WORD = re.compile(
    r"(?<![A-Za-z_])(?:" + "|".join(sorted(w for ws in FORBIDDEN_WORDS.values() for w in ws)) + r")(?![A-Za-z0-9_'!?])"
)
# "0xfopen" would end a hexadecimal number in a letter and let the next keyword pass as its continuation.
_RADIX_NUMBER = re.compile(r"0[xXbBoO]")
_FENCE = re.compile(r"^```[ \t]*(\w*)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_HEADER_LINE = re.compile(r"(?:open|universe)( [A-Za-z_][\w.']*)+")
_BRACKETS = {")": "(", "]": "[", "}": "{", "⟩": "⟨", "⦄": "⦃"}


class NoProofError(ValueError):
    """The answer holds no proof in the form asked for; the message says what is missing."""


def extract_proof(text: str, extract: Extract = "raw", trailing: Trailing = "reject") -> str:
    r"""The proof in a model's answer; never anything but a part of ``text``.

    Args:
        text: the answer.
        extract: ``raw`` takes all of it; ``fence`` takes the last closed block fenced by three backquotes whose tag
            is ``lean4``, ``lean`` or absent.
        trailing: in fence mode, whether text after that block is let pass. An answer that goes on after its proof is
            often one that hedges, so ``reject`` is the default.

    Raises:
        NoProofError: where no such block exists or text follows it.

    >>> extract_proof("Here:\n```lean4\nfun _ h => h\n```\n", "fence")
    'fun _ h => h'
    """
    if extract == "raw":
        return text.strip("\n").rstrip()
    blocks = [match for match in _FENCE.finditer(text) if match[1] in ("lean4", "lean", "")]
    if not blocks:
        raise NoProofError("the answer holds no closed ```lean block")
    last = blocks[-1]
    if trailing == "reject" and text[last.end() :].strip():
        raise NoProofError("text follows the closing fence")
    return last[2].strip("\n").rstrip()


def find_forbidden(proof: str) -> str | None:
    """Why ``proof`` is not even shown to Lean, or None if it may be.

    >>> find_forbidden("by sorry")
    "'sorry' stands for a missing proof or drops the rest of one"
    >>> find_forbidden("fun _ h => h") is None
    True
    """
    if not proof.strip():
        return "the proof is empty"
    return _find_forbidden_text(proof, MAX_PROOF_BYTES)


def check_statement(task: ProofTask) -> None:
    """Refuse a task whose own parts could not be checked as what they claim to be.

    A statement comes from the data set, not from the model, so a bad one is an error of the data and not a verdict:
    a verdict would reward or punish every answer to it for something the model never wrote.

    Raises:
        DataError: naming the task, the part and what is wrong with it.
    """
    statement = _find_forbidden_text(task.statement, MAX_STATEMENT_BYTES) or _find_open_end(task.statement)
    binders = _find_forbidden_text(task.binders, MAX_STATEMENT_BYTES) or _find_loose_binder(task.binders)
    for part, text, problem in (("statement", task.statement, statement), ("binders", task.binders, binders)):
        if problem is None and not unicodedata.is_normalized("NFC", text):
            problem = "it is not in Unicode normal form C; normalise it, or two look-alike names may differ"
        if problem is not None:
            raise DataError(f"task {task.name!r}: {part} {_shorten(text)!r}: {problem}")
    for line in task.header.splitlines():
        if line.strip() and not _HEADER_LINE.fullmatch(line.strip()):
            raise DataError(
                f"task {task.name!r}: header line {_shorten(line)!r}: use only 'open …' or 'universe …' lines"
            )


def build_source(task: ProofTask) -> str:
    """The file Lean checks: the prelude, the header, and one theorem that is always called ``X``.

    >>> print(build_source(ProofTask("True", "trivial")), end="")
    prelude
    import RLPre
    theorem X : True :=
    trivial
    """
    return f"{_opening(task)}theorem {_signature(task)} :=\n{task.proof}\n"


def build_statement(task: ProofTask) -> str:
    """A file that Lean reads without complaint exactly if the statement means something by itself.

    >>> print(build_statement(ProofTask("True", "trivial")), end="")
    prelude
    import RLPre
    axiom X : True
    """
    return f"{_opening(task)}axiom {_signature(task)}\n"


def proof_start_line(task: ProofTask) -> int:
    """The line of `build_source` on which the proof begins, counted from 1 as Lean does.

    >>> proof_start_line(ProofTask("True", "trivial"))
    4
    """
    return build_source(task)[: -len(task.proof) - 1].count("\n") + 1


def _opening(task: ProofTask) -> str:
    header = f"{task.header.strip()}\n" if task.header.strip() else ""
    return f"prelude\nimport {PRELUDE}\n{header}"


def _signature(task: ProofTask) -> str:
    binders = f" {task.binders}" if task.binders else ""
    return f"{THEOREM}{binders} : {task.statement}"


def _find_forbidden_text(text: str, max_bytes: int) -> str | None:
    for character in text:
        category = unicodedata.category(character)
        # Control, format, surrogate and private characters, and Unicode's line separators: invisible, or not text.
        if character != "\n" and (category[0] == "C" or category in ("Zl", "Zp")):
            return f"it contains the character U+{ord(character):04X}, which a reader cannot see"
    size = len(text.encode())
    if size > max_bytes:
        return f"it is {size} bytes long; the limit is {max_bytes}"
    for mark, cheat in _FORBIDDEN_MARKS.items():
        if mark in text:
            return f"{mark!r} {cheat}"
    if number := _RADIX_NUMBER.search(text):
        return f"{number[0]!r} starts a number that is not decimal and can run into a keyword"
    if found := _WORD.search(text):
        return f"{found[0]!r} {next(cheat for cheat, words in FORBIDDEN_WORDS.items() if found[0] in words)}"
    return None


def _find_open_end(statement: str) -> str | None:
    """Why the statement would not end where it seems to: a stray bracket, or a ``:=`` that starts the proof early."""
    stack: list[str] = []
    for index, character in enumerate(statement):
        if character in _BRACKETS.values():
            stack.append(character)
        elif character in _BRACKETS and (not stack or stack.pop() != _BRACKETS[character]):
            return f"{character!r} closes nothing"
        elif statement.startswith(":=", index) and not stack:
            return "':=' outside brackets would end the statement; put that part in parentheses"
    return f"{stack[-1]!r} is never closed" if stack else None


def _find_loose_binder(binders: str) -> str | None:
    depth = 0
    for character in binders:
        if character in _BRACKETS.values():
            depth += 1
        elif depth == 0 and not character.isspace():
            return f"{character!r} stands outside brackets; write binders as (x : T), {{x : T}} or [T]"
        elif character in _BRACKETS:
            depth -= 1
    return _find_open_end(binders)


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
