r"""Extracts the proof from a model's answer, and says which answers contain none.

The answer is first normalised: a byte order mark at its start is dropped, ``\r\n`` becomes ``\n``, and the text is put
into Unicode's normal form C, in which statements are written. After that it is only cut. Control, format and
private-use characters, including tabs and lone carriage returns, are left in place for the filter to reject
(`source.find_forbidden`), because removing one could join two words.

All steps take time linear in the length of the answer, also for hostile answers.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

from rlpost.config.choices import check_choices
from rlpost_verifiers.lean.blocks import cut_tail, find_blocks
from rlpost_verifiers.lean.declarations import NoTheoremError, read_declarations
from rlpost_verifiers.lean.forms import Form, as_proof, put_by
from rlpost_verifiers.lean.task import ProofTask

Extract = Literal["declarations", "raw", "fence", "continued"]
Trailing = Literal["reject", "allow"]
Fences = Literal["last", "first", "only"]
Restated = Literal["reject", "allow"]

# Unicode's Stream-Safe Text Format (UAX #15, section 13). Normalising sorts each run of marks by insertion: without
# a limit an answer of 80,000 marks takes seven seconds, and one ten times as long a quarter of an hour.
_MAX_MARKS = 30
_LEAN_TAGS = ("", "lean", "lean4")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$", re.MULTILINE)
_CLOSING_FENCE = re.compile(r"^```[ ]*$", re.MULTILINE)
_THEOREM = re.compile(r"(?:theorem|lemma)(?![\w'!?.])")
_NAME = re.compile(r"[ \n]+[\w'!?.]+")
_COMMENT_MARK = re.compile(r"/-|-/")
_INK = re.compile(r"[^ \n]")
_WORD = re.compile(r"[^ \n]+")
_LINE = re.compile(r".*")
# Whitespace inside these is content (strings, characters, quoted names, comments) or layout that Lean reads: a line
# break separates `let x := f` from its body and the fields in `{ x y }`, columns decide where a tactic block ends.
_SPACING_MATTERS = re.compile(r"""["«]|'[ \n]'|--|/-|:=|\{[^:{}]*\}|\b(?:by|calc|do|have|let|suffices)\b""")


class NoProofError(ValueError):
    """The answer contains no proof in the required form; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ExtractSettings:
    """Which part of an answer is the proof.

    Attributes:
        extract: ``declarations``, the theorem with the declarations before it, as whole-proof provers write it, from
            the last block of Lean that declares it, or else the last block (or, where there is none, the answer) as the
            bare proof; `rlpost_verifiers.lean.declarations` has the rules, and of the settings below only ``form``
            applies. Or ``raw``, all of the answer after the reasoning; or ``fence``, a block of it between lines of at
            least three backquotes or tildes, as in Markdown, whose tag is ``lean4``, ``lean`` or absent; or
            ``continued``, the text before the first line of three backquotes, or all of it, for a prompt that has
            opened the block.
        trailing: whether text may follow that block. An answer that goes on after its proof often hedges.
        fences: the block that counts where there are several; ``only`` rejects an answer with a second block.
        form: the end of the prompt that the answer continues. ``any`` and ``term``: the prompt ends with ``:=``, and
            the proof is taken as written, except that with ``declarations`` and ``any`` a bare proof that begins with a
            tactic is taken for a tactic block. ``tactic``: it ends with ``:= by``. Unless the answer starts with its
            own ``by``, one is put on a line before it, and if its first line is not indented, all lines are indented by
            two spaces. The columns of the first line must therefore come from the answer: end such a prompt with
            ``by``, not with spaces.
        restated: ``allow`` accepts an answer that writes out the whole theorem, as whole-proof provers do; ``reject``
            leaves its ``theorem`` to the filter, which rejects it.

    Raises:
        UserError: for a value that is not one of these.

    >>> ExtractSettings(fences="all")
    Traceback (most recent call last):
    rlpost.errors.UserError: fences is 'all'; use 'last', 'first' or 'only'
    """

    extract: Extract = "declarations"
    trailing: Trailing = "reject"
    fences: Fences = "last"
    form: Form = "any"
    restated: Restated = "reject"

    def __post_init__(self) -> None:
        check_choices(self)


def extract_task(text: str, task: ProofTask, settings: ExtractSettings) -> ProofTask:
    r"""The task with the proof that an answer holds, in mode ``declarations`` if it declares the theorem.

    Raises:
        NoProofError: as `extract_proof`, or if no theorem in the answer is surely the task's.

    >>> answer = "```lean4\ntheorem t : True := by\n  trivial\n```<|im_end|>"
    >>> extract_task(answer, ProofTask("True", "", "t"), ExtractSettings()).mode
    'declarations'
    """
    if settings.extract != "declarations" or task.mode == "file":
        return replace(task, proof=extract_proof(text, task, settings))
    blocks = find_blocks(cut_tail(_drop_thought(_normalise(text))))
    if not blocks:
        raise NoProofError("the answer holds no ```lean block")
    problem: NoTheoremError | None = None
    for block in reversed(blocks):
        try:
            if (found := read_declarations(block.text, task)) is not None:
                return found
        except NoTheoremError as error:
            problem = problem or error
    if problem is not None:
        raise NoProofError(str(problem)) from problem
    return replace(task, proof=as_proof(_trim(blocks[-1].text), settings.form), mode="proof")


def extract_proof(text: str, task: ProofTask, settings: ExtractSettings) -> str:
    r"""The proof in a model's answer, without leading blank lines and trailing blanks.

    Everything up to the last ``</think>`` is reasoning and not part of the answer; blocks in it do not count.

    A restated theorem (a ``theorem`` or ``lemma``) must have the task's binders and statement. Its name is free, and
    so are spaces and line breaks between words, except in binders or a statement where they can carry meaning (it
    contains a string, a ``:=``, a set or record in braces, or a word such as ``by`` or ``let``): there every character
    counts. Comments and lines of the task's header may precede it. The text after its ``:=`` is the proof, whatever
    ``form`` says, with spaces before its first line where later lines are aligned with it.

    In the other modes the answer is a whole text, and ``form`` and ``restated`` do not apply.

    Raises:
        NoProofError: if the reasoning or a block is never closed, there is no such block or one too many, text follows
            it, a restated theorem is not the task's, or there are more than 30 combining marks in a row.

    >>> task = ProofTask("True", "")
    >>> extract_proof("<think>```\nrfl\n```</think>So:\n~~~Lean\ntrivial\n~~~", task, ExtractSettings("fence"))
    'trivial'
    >>> extract_proof("skip\ntrivial", task, ExtractSettings(form="tactic"))
    'by\n  skip\n  trivial'
    >>> extract_proof("theorem mine : True := trivial", task, ExtractSettings(restated="allow"))
    'trivial'
    """
    answer = cut_tail(_drop_thought(_normalise(text)))
    cut = {"raw": lambda text, _: text, "declarations": _cut_last, "fence": _cut_block, "continued": _cut_at_fence}[
        settings.extract
    ]
    proof = _trim(cut(answer, settings))
    if task.mode != "proof":
        return proof
    if settings.restated == "allow" and (restated := _cut_restated(proof, task)) is not None:
        return restated
    return put_by(proof) if settings.form == "tactic" else proof


def _normalise(text: str) -> str:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if text.isascii():
        return text
    marks = 0
    for character in text:
        # Not unicodedata.combining: that is 0 for U+0F73 and its like, which fall apart into two marks.
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks > _MAX_MARKS:
            raise NoProofError(f"more than {_MAX_MARKS} combining marks stand in a row")
    return unicodedata.normalize("NFC", text)


def _drop_thought(text: str) -> str:
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        raise NoProofError("the answer ends inside its thought: <think> is never closed")
    return answer


def _trim(text: str) -> str:
    blank = len(text) - len(text.lstrip(" \n"))
    return text[text.rfind("\n", 0, blank) + 1 :].rstrip(" \n")


def _cut_block(text: str, settings: ExtractSettings) -> str:
    blocks = _find_blocks(text)
    if not blocks:
        raise NoProofError("the answer holds no closed ```lean block")
    if settings.fences == "only" and len(blocks) > 1:
        raise NoProofError(f"the answer holds {len(blocks)} ```lean blocks; it should hold one")
    opening, closing = blocks[0 if settings.fences == "first" else -1]
    if settings.trailing == "reject" and text[closing.end() :].strip():
        raise NoProofError("text follows the closing fence")
    return text[opening.end() + 1 : closing.start()]


def _cut_at_fence(text: str, settings: ExtractSettings) -> str:
    closing = _CLOSING_FENCE.search(text)
    if closing is None:
        # A model may end its turn where it should close the block; whether the proof is complete, Lean tells.
        return text.removesuffix("```")
    if settings.trailing == "reject" and text[closing.end() :].strip():
        raise NoProofError("text follows the closing fence")
    return text[: closing.start()]


def _cut_last(text: str, _: ExtractSettings) -> str:
    blocks = find_blocks(text)
    return blocks[-1].text if blocks else text


def _find_blocks(text: str) -> list[tuple[re.Match[str], re.Match[str]]]:
    blocks: list[tuple[re.Match[str], re.Match[str]]] = []
    opening: re.Match[str] | None = None
    for line in _FENCE.finditer(text):
        marks, rest = line[1], line[2].strip()
        if opening is None:
            # ```rfl``` on one line is Markdown's inline code and opens nothing.
            opening = line if marks[0] == "~" or "`" not in rest else None
        elif not rest and marks.startswith(opening[1]):
            if opening[2].strip().lower() in _LEAN_TAGS:
                blocks.append((opening, line))
            opening = None
    if opening is not None:
        raise NoProofError("the last block is never closed: the answer was cut off")
    return blocks


def _cut_restated(text: str, task: ProofTask) -> str | None:
    """The text after the restated theorem's ``:=``, or None where ``text`` does not start with a theorem."""
    keyword = _THEOREM.match(text, _skip_preamble(text, task.header))
    if keyword is None:
        return None
    name = _NAME.match(text, keyword.end())
    if name is None:
        raise NoProofError(f"the restated statement differs from the task's: no plain name follows {keyword[0]!r}")
    end = name.end()
    # Match the task's own parts instead of searching for the model's ":=": the end of a statement is hard to find
    # (defaults, strings, `let`), while a match with a known statement is easy to check.
    for part in (task.binders, ":", task.statement, ":="):
        end = _match_part(text, end, part)
    column = end - text.rfind("\n", 0, end) - 1
    proof = _trim(" " * column + text[end:])
    first, line_break, _ = proof.partition("\n")
    return proof.lstrip(" ") if not line_break or first.strip(" ") == "by" else proof


def _match_part(text: str, start: int, part: str) -> int:
    """The index at which ``part`` ends in ``text``, which must contain it from ``start`` on, after blanks."""
    part = part.strip(" \n")
    words = [part] if part and _SPACING_MATTERS.search(part) else _WORD.findall(part)
    end = start
    for index, word in enumerate(words):
        ink = _INK.search(text, end)
        begin = ink.start() if ink else len(text)
        if not text.startswith(word, begin) or (index > 0 and begin == end):
            found, wanted = text[begin : begin + 30], word[:30]
            raise NoProofError(f"the restated statement differs from the task's: {found!r} where {wanted!r} should be")
        end = begin + len(word)
    return end


def _skip_preamble(text: str, header: str) -> int:
    """The index after the comments and the lines of ``header`` that ``text`` starts with."""
    known = {" ".join(_WORD.findall(line)) for line in header.splitlines()}
    position = 0
    while ink := _INK.search(text, position):
        position = ink.start()
        if text.startswith("/-", position):
            position = _comment_end(text, position)
            continue
        line = _LINE.match(text, position)
        assert line is not None
        if not line[0].startswith("--") and " ".join(_WORD.findall(line[0])) not in known:
            break
        position = line.end()
    return position


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += 1 if mark[0] == "/-" else -1
        if depth == 0:
            return mark.end()
    return len(text)
