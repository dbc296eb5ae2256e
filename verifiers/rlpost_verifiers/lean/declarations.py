"""Takes the theorem and the declarations that it needs out of the Lean that a model wrote.

The text is only cut and blanked, so that every column stays what it was: comments, imports, attributes of the theorem,
`#print` and its like, declarations of the task's own context that the model repeats, and everything after the theorem.
What the theorem states is not judged here: Lean does that, by the type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rlpost_verifiers.lean.scopes import open_scopes
from rlpost_verifiers.lean.source import MAX_PROOF_BYTES
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.text import CommentError, Word, blank_comments, words

PROVING = ("theorem", "lemma")
_DECLARING = (*PROVING, "def", "abbrev", "instance", "structure", "inductive", "class", "example", "opaque", "axiom")
# What begins a command at the start of a line, and so ends the theorem before it.
_NEXT = re.compile(
    r"^(?:@\[|#|(?:theorem|lemma|def|abbrev|instance|structure|inductive|class|example|end|namespace|section|open|"
    r"variable|universe|set_option|attribute|noncomputable|private|protected|local|scoped|macro|notation|axiom|opaque|"
    r"mutual|export|include|omit|import|elab|syntax|infix[lr]?|unsafe|partial)(?![\w'!?.]))",
    re.MULTILINE,
)
_IMPORT = re.compile(r"^(?:public )?import [^\n]*$", re.MULTILINE)
_SHOWING = re.compile(
    r"^#(?:print|check|check_failure|eval|reduce|synth|help|guard|where)\b[^\n]*(?:\n[ ][^\n]*)*", re.MULTILINE
)
# Options that change what Lean prints, of which Mathlib has many that no other Lean knows.
_COSMETIC = re.compile(
    r"^set_option[ ]+(?:weak\.)?(?:linter|pp|trace|profiler|diagnostics)[\w.]*[ ]+\w+[ ]*$", re.MULTILINE
)
_MODIFIERS = re.compile(
    r"(?:@\[[^\[\]]*\]|(?<![\w.])(?:private|protected|nonrec|noncomputable|public|local|scoped))\s*\Z"
)
_MODIFIER_WINDOW = 400
# Far more than Lean is given afterwards (`source.MAX_PROOF_BYTES`), since only part of the text is kept.
_MAX_LENGTH = 4 * MAX_PROOF_BYTES
_SPACE = re.compile(r"[\s()]+")
_SIGNATURE = re.compile(r":=|\bwhere\b|\n\s*\|")


class NoTheoremError(ValueError):
    """The text has declarations, and none of them is surely the task's theorem; the message says why."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One declaration of a text.

    Attributes:
        keyword: ``theorem``, ``def`` and the like, with its place.
        name: its name as written, with its place; None where it has none.
        full: the name with the namespaces around it.
    """

    keyword: Word
    name: Word | None
    full: str


def read_declarations(text: str, task: ProofTask) -> ProofTask | None:
    r"""The task with the theorem of ``text`` and what stands before it as its proof; None if nothing is declared there.

    The theorem is the one with the task's name, or the only one there is, or the only one that states what the task
    does; a wrong choice is no danger, since Lean judges what it proves.

    Raises:
        NoTheoremError: if no theorem can be chosen, or the comments cannot be told.

    >>> text = "import Mathlib\nlemma a : True := trivial\n@[simp] theorem t : True := a -- easy\n#print axioms t"
    >>> found = read_declarations(text, ProofTask("True", "", theorem="t"))
    >>> found.theorem, found.proof
    ('t', '              \ntheorem a : True := trivial\ntheorem         t : True := a')
    """
    if len(text) > _MAX_LENGTH:
        raise NoTheoremError(f"the code is {len(text)} characters long; the limit is {_MAX_LENGTH}")
    try:
        bare = blank_comments(text)
    except CommentError as error:
        raise NoTheoremError(str(error)) from None
    declared = find_declarations(bare)
    if not declared:
        return None
    target = choose_theorem(declared, bare, task)
    end = _end_of(bare, target)
    kept = _blank_repeated(bare[:end], [each for each in declared if each.keyword.start < end], task.context)
    kept = _blank(kept, _IMPORT, _SHOWING, _COSMETIC)
    # Again, because a namespace that the context has open may have gone.
    declared = find_declarations(kept)
    target = next((each for each in declared if each.keyword.start == target.keyword.start), target)
    edits = [edit for each in declared if each.keyword.start < end for edit in _edits(kept, each, each is target)]
    proof = _edited(kept, edits).rstrip()
    return replace(task, proof=proof, mode="declarations", theorem=target.full)


def find_declarations(bare: str) -> list[Declaration]:
    """The declarations in a text without comments, each with the namespaces that are open where it stands.

    >>> [each.full for each in find_declarations("namespace A theorem b.{u} : True := h end A def c := 1")]
    ['A.b', 'c']
    """
    known = list(words(bare))
    found: list[Declaration] = []
    scopes: list[str] = []
    for index, word in enumerate(known):
        after = known[index + 1] if index + 1 < len(known) else None
        if word.text in ("namespace", "section", "mutual", "end"):
            _enter(scopes, bare, word, after)
        elif word.text in _DECLARING and not _is_attribute(bare, word):
            named = after is not None and not bare[word.end : after.start].strip()
            name = after if named else None
            own = name.text.removeprefix("_root_.") if name else ""
            rooted = name is not None and name.text.startswith("_root_.")
            parts = [own] if rooted else [*(scope for scope in scopes if scope), own]
            found.append(Declaration(word, name, ".".join(parts)))
    return found


def choose_theorem(declared: Sequence[Declaration], bare: str, task: ProofTask) -> Declaration:
    """The declaration that is to prove the task's statement.

    Raises:
        NoTheoremError: if there is none, or more than one could be meant.
    """
    theorems = [each for each in declared if each.keyword.text in PROVING and each.name]
    wanted = {name for name in (task.theorem, task.name) if name}
    named = [each for each in theorems if _is_called(each, wanted)]
    if len(named) > 1:
        raise NoTheoremError(f"{len(named)} theorems are called {named[0].full!r}; one must be")
    if named:
        return named[0]
    other = next((each for each in declared if each.name and _is_called(each, wanted)), None)
    if other is not None:
        raise NoTheoremError(f"{other.full!r} is declared by {other.keyword.text!r}; prove it as a theorem")
    if len(theorems) == 1:
        return theorems[0]
    given = _squeeze(f"{task.binders}:{task.statement}")
    stating = [each for each in theorems if _squeeze(_signature_of(bare, each)) == given]
    if len(stating) == 1:
        return stating[0]
    shown = task.theorem or task.name
    raise NoTheoremError(f"none of the {len(theorems)} theorems is called {shown!r}, and not exactly one states it")


def _is_called(declaration: Declaration, wanted: set[str]) -> bool:
    full = declaration.full
    return any(full == name or full.endswith(f".{name}") or name.endswith(f".{full}") for name in wanted)


def _enter(scopes: list[str], bare: str, word: Word, after: Word | None) -> None:
    if word.text == "end":
        if scopes:
            scopes.pop()
        return
    named = word.text == "namespace" and after is not None and "\n" not in bare[word.end : after.start]
    scopes.append(after.text if named and after is not None else "")


def _is_attribute(bare: str, word: Word) -> bool:
    """Whether the word stands in a list of attributes, as in ``attribute [instance] foo``."""
    return word.text in ("instance", "class") and bare[max(0, word.start - 80) : word.start].rstrip()[-1:] in (
        "[",
        ",",
        "-",
    )


def _end_of(bare: str, target: Declaration) -> int:
    inside = (word for word in words(bare[: target.keyword.start]))
    if any(keyword == "mutual" for keyword, _ in open_scopes(bare, inside)):
        closing = re.compile(r"^end\b", re.MULTILINE).search(bare, target.keyword.end)
        return closing.end() if closing else len(bare)
    following = _NEXT.search(bare, target.keyword.end)
    return following.start() if following else len(bare)


def _signature_of(bare: str, declaration: Declaration) -> str:
    start = declaration.name.end if declaration.name else declaration.keyword.end
    end = _SIGNATURE.search(bare, start)
    return bare[start : end.start() if end else len(bare)]


def _squeeze(text: str) -> str:
    return _SPACE.sub("", text)


def _blank(text: str, *patterns: re.Pattern[str]) -> str:
    for pattern in patterns:
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def _blank_repeated(bare: str, declared: Sequence[Declaration], context: str) -> str:
    """``bare`` without the commands that it shares, to the letter, with the context, which stands before it anyway."""
    if not context.strip():
        return bare
    known = {_normal(command) for command in _commands(blank_comments(context))}
    pieces = [re.sub(r"[^\n]", " ", command) if _normal(command) in known else command for command in _commands(bare)]
    return "".join(pieces)


def _commands(text: str) -> list[str]:
    starts = sorted({0, *(found.start() for found in _NEXT.finditer(text)), len(text)})
    return [text[start:end] for start, end in pairwise(starts)]


def _normal(command: str) -> str:
    return " ".join(command.split())


def _edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    pieces: list[str] = []
    position = 0
    for start, stop, new in sorted(edits):
        pieces += text[position:start], new
        position = stop
    return "".join((*pieces, text[position:]))


def _edits(text: str, declaration: Declaration, is_target: bool) -> list[tuple[int, int, str]]:
    keyword, name = declaration.keyword, declaration.name
    if not text[keyword.start : keyword.end].strip():
        return []
    edits: list[tuple[int, int, str]] = []
    start = keyword.start
    if is_target:
        window = max(0, start - _MODIFIER_WINDOW)
        while found := _MODIFIERS.search(text, window, start):
            start = found.start()
    if keyword.text in PROVING:  # "lemma" is a word that only Mathlib knows
        # The theorem begins where its attributes did: columns after it are compared with its own.
        cut = text[start : keyword.end]
        rest = "\n" * cut[:7].count("\n") + re.sub(r"[^\n]", " ", cut[7:])
        edits.append((start, keyword.end, f"theorem{rest}"))
    if name is not None and name.text.startswith("_root_."):
        edits.append((name.start, name.start + len("_root_."), " " * len("_root_.")))
    return edits
