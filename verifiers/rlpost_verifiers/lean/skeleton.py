r"""Reads the skeleton of a proof, its leading `have name : T := …` steps, from the text alone.

A proof is a block of tactics or a term. After a first ``intro`` (or ``fun``) with plain names come the steps; the first
step that is no plain ``have`` begins the *rest*, which closes the goal. A plain ``have`` states its type and binds one
name or none, so that what it adds to the context is known without Lean: ``have ⟨a, b⟩ : …``, ``obtain``,
``have h := e`` and everything after them belong to the rest. A ``have`` within a step is part of that step.

Nothing here is trusted: `rlpost_verifiers.lean.subgoals` has Lean check whatever is concluded from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rlpost_verifiers.lean.declarations import PROVING, find_declarations
from rlpost_verifiers.lean.filter import find_forbidden
from rlpost_verifiers.lean.source import find_loose_binder, find_open_end
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.text import CommentError, blank_comments

_NAME = r"[^\W\d][\w'!?]*"
_END = r"(?![\w'!?.])"
_BY = re.compile(rf"by{_END}")
_FUN = re.compile(rf"(?:fun|λ)((?:\s+{_NAME})+)\s*(?:=>|↦)")
_INTRO = re.compile(rf"r?intros?((?:[ ]+{_NAME})+)")
_HAVE = re.compile(rf"have{_END}")
_HEAD = re.compile(_NAME)
_WORD = re.compile(r"[^\W\d][\w'!?.]*|λ")
_OPEN_LINE = re.compile(r"^open(?: scoped)?(?: (?!in[ ]*$)[A-Za-z_][\w.']*)+[ ]*$", re.MULTILINE)
_FENCE = re.compile(r"^[ >]*(?:```|~~~)[^\n]*", re.MULTILINE)
_MOST_FENCES = 32
_SPACE = re.compile(r"[\s()]+")
# After one of these, a ";" separates tactics or terms inside the step, not the step from the next.
_NESTING = frozenset(("by", "fun", "λ", "let", "show", "suffices", "do", "match", "calc", "from", "have", "if"))
_NO_TYPE = _NESTING - {"fun", "λ", "if"}
_OPENING, _CLOSING = "([{⟨⦃", ")]}⟩⦄"


@dataclass(frozen=True, slots=True)
class Step:
    """A plain ``have``.

    Attributes:
        name: the name that it binds; ``this`` where it gives none.
        binders: its own arguments, as in ``have h (n : Nat) : n = n``.
        type: its type, as written.
        proof: what proves it, with the column of its first line kept.
        start: index of its first character in the task's proof.
        stop: index one past its last character.
    """

    name: str
    binders: str
    type: str
    proof: str
    start: int
    stop: int

    @property
    def closed_type(self) -> str:
        """Its type with its own arguments."""
        return f"∀ {self.binders}, {self.type}" if self.binders else self.type


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The steps of a proof, and what is around them.

    Attributes:
        task: the task as the steps are to be stated: header and binders, and as its proof what the answer declares
            before its theorem.
        theorem: the theorem's name as the answer writes it; empty where it does not.
        names: names that the proof introduces first.
        steps: the steps, in order.
        begin: index in the proof after the theorem's ``:=``.
        rest: index in the proof at which the rest begins; None if nothing follows the steps.
        column: column of the steps.
        tactics: whether the proof is a block of tactics.
        text: the proof without comments, with every index as it was.
    """

    task: ProofTask
    theorem: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    begin: int
    rest: int | None
    column: int
    tactics: bool
    text: str


def read_skeleton(task: ProofTask, most: int) -> Skeleton | None:
    r"""The skeleton of a task's proof; None if it has none that can be read for sure.

    Args:
        task: the task, in mode ``proof`` or ``declarations``.
        most: number of steps that are read; further ones belong to the rest.

    >>> proof = "by\n  intro p hp\n  have h : p ∧ p := ⟨hp, hp⟩\n  exact h.1"
    >>> found = read_skeleton(ProofTask("∀ p : Prop, p → p", proof), 4)
    >>> found.names, [(step.name, step.type, step.proof.strip()) for step in found.steps], proof[found.rest :]
    (('p', 'hp'), [('h', 'p ∧ p', '⟨hp, hp⟩')], 'exact h.1')
    """
    if task.mode == "file":
        return None
    try:
        text = blank_comments(task.proof)
    except CommentError:
        return None
    body = _body(task, text)
    if body is None:
        return None
    stated, theorem, begin = body
    first = _ink(text, begin)
    names: tuple[str, ...] = ()
    if tactics := _BY.match(text, first) is not None:
        first = _ink(text, first + 2)
    while not tactics and (found := _FUN.match(text, first)):
        names, first = names + tuple(found[1].split()), _ink(text, found.end())
    if not _balanced(text[begin:]):
        return None
    column = _column(text, first)
    pieces = list(_pieces(text, first, column, tactics))
    if not pieces or (tactics and any(_column_of_line(text, piece) < column for piece in pieces)):
        return None
    number = 0
    while tactics and number < len(pieces) and (found := _INTRO.fullmatch(text, *pieces[number])):
        names, number = names + tuple(found[1].split()), number + 1
    steps: list[Step] = []
    while number < len(pieces) and len(steps) < most and (step := _read_have(text, *pieces[number])):
        steps.append(step)
        number += 1
    if not steps or "_" in names:
        return None
    rest = pieces[number][0] if number < len(pieces) else None
    return Skeleton(stated, theorem, names, tuple(steps), begin, rest, column, tactics, text)


def telescope(statement: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Binders for the first arguments of a statement under the given names, and what is left of the statement.

    Read from ``∀ x y : T,``, ``∀ (x : T),`` and ``A →`` alone; None for anything else, such as ``¬ A`` or ``∀ x ∈ s``.

    >>> telescope("∀ p q : Prop, p → (q → p)", ("a", "b", "h"))
    ('(a : Prop) (b : Prop) (h : a)', '(b → a)')
    """
    binders: list[str] = []
    left, waiting = statement.strip(), [*names]
    while waiting:
        left = _unwrapped(left)
        taken = _for_all(left) if left.startswith("∀") else _premise(left)
        if taken is None:
            return None
        arguments, left = taken
        while arguments and waiting:
            (old, kind), new = arguments.pop(0), waiting.pop(0)
            binders.append(f"({new} : {kind})")
            if old and old != new:
                arguments = [(name, _renamed(type_, old, new)) for name, type_ in arguments]
                left = _renamed(left, old, new)
        if arguments:
            left = f"∀ {' '.join(f'({name} : {kind})' for name, kind in arguments)}, {left}"
    return " ".join(binders), left


def locate(answer: str, text: str) -> list[int] | None:
    r"""For each character of ``text`` that is no white space, its index in the answer that ``text`` was taken from.

    Comments of the answer do not count. A first ``by`` may be missing there, where the prompt ends with it: it is
    placed at what follows. None if the text does not stand in the answer, as where that was normalised.

    >>> locate("So:\n```lean\nby -- easy\n rfl\n```", "by        \n rfl")
    [12, 13, 24, 25, 26]
    >>> locate("rfl", "by\n  rfl")
    [0, 0, 0, 1, 2]
    """
    wanted = "".join(text.split())
    begin = max(answer.rfind("</think>"), 0)
    starts = [begin, *(found.end() for found in _FENCE.finditer(answer, begin))]
    for start in reversed(starts[-_MOST_FENCES:]):
        try:
            bare = blank_comments(answer[start:])
        except CommentError:
            continue
        places = [place for place, character in enumerate(bare, start) if not character.isspace()]
        inked = "".join(bare.split())
        for missing in (0, 2) if _BY.match(text.lstrip()) else (0,):
            found = inked.rfind(wanted[missing:])
            if len(wanted) > missing and found >= 0:
                return [places[found]] * missing + places[found : found + len(wanted) - missing]
    return None


def _body(task: ProofTask, text: str) -> tuple[ProofTask, str, int] | None:
    """The task without its proof, the theorem's name, and where the proof's own text begins."""
    if task.mode == "proof":
        return replace(task, proof=""), "", 0
    theorems = [one for one in find_declarations(text) if one.keyword.text in PROVING and one.full == task.theorem]
    if not theorems or theorems[-1].name is None:
        return None
    target, name = theorems[-1], theorems[-1].name
    assign = text.find(":=", name.end)
    if assign < 0 or _squeeze(text[name.end : assign]) != _squeeze(f"{task.binders}:{task.statement}"):
        return None
    before = text[: target.keyword.start]
    header = "\n".join(dict.fromkeys([*task.header.splitlines(), *_OPEN_LINE.findall(before)]))
    before = _OPEN_LINE.sub("", before)
    stated = replace(task, header=header, proof=f"{before.rstrip()}\n" if before.strip() else "")
    return replace(stated, mode="declarations" if stated.proof else "proof"), name.text, assign + 2


def _squeeze(text: str) -> str:
    return _SPACE.sub("", text)


def _pieces(text: str, first: int, column: int, tactics: bool) -> Iterator[tuple[int, int]]:
    """Start and end of each step of a block whose steps begin at a column, or after a ";"."""
    start, depth, nested = first, 0, False
    place = first
    while place < len(text):
        character = text[place]
        begins = place > start and text[place - 1 : place] == "\n" and depth == 0
        if begins:
            ink = _ink(text, place)
            if ink < len(text) and _column(text, ink) <= column:
                yield start, _trimmed(text, start, place)
                start, nested = ink, False
            if ink > place or start == ink:
                place = ink
                continue
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == ";" and depth == 0 and not nested and text[place - 1] != "<":
            yield start, _trimmed(text, start, place)
            start = place = _ink(text, place + 1)
            continue
        if word := _WORD.match(text, place):
            nested = nested or (depth == 0 and place > start and word[0] in _NESTING)
            place = word.end()
            continue
        place += 1
    if start < len(text) and text[start:].strip():
        yield start, _trimmed(text, start, len(text))


def _read_have(text: str, start: int, stop: int) -> Step | None:
    found = _HAVE.match(text, start, stop)
    if found is None:
        return None
    colon = _at_surface(text, ":", found.end(), stop)
    if colon is None or text.startswith(":=", colon):
        return None
    assign = _at_surface(text, ":=", colon + 1, stop)
    if assign is None:
        return None
    head, kind = text[found.end() : colon].strip(), text[colon + 1 : assign].strip()
    name = _HEAD.match(head)
    binders = head[name.end() if name else 0 :].strip()
    loose = binders and (not name or binders.startswith("⟨") or find_loose_binder(binders))
    if loose or not kind or find_open_end(kind) or any(find_forbidden(one) for one in (kind, binders) if one):
        return None
    if any(word in _NO_TYPE for word in _surface_words(kind)):
        return None
    value = _ink(text, assign + 2)
    proof = " " * _column(text, value) + text[value:stop] if value < stop else ""
    return Step(name[0] if name else "this", binders, kind, proof, start, stop)


def _for_all(statement: str) -> tuple[list[tuple[str, str]], str] | None:
    """Names and types that a leading ``∀`` binds, and what follows its comma."""
    comma = _at_surface(statement, ",", 1, len(statement))
    if comma is None:
        return None
    bound, left = statement[1:comma].strip(), statement[comma + 1 :].strip()
    groups = _groups(bound) if bound.startswith(tuple("({⦃[")) else [bound]
    found: list[tuple[str, str]] = []
    for group in groups or [""]:
        colon = _at_surface(group, ":", 0, len(group))
        names = group[:colon].split() if colon is not None else []
        if colon is None or not names or any(not re.fullmatch(_NAME, name) for name in names):
            return None
        found += [(name, group[colon + 1 :].strip()) for name in names]
    return found, left


def _groups(bound: str) -> list[str] | None:
    """The insides of ``(x : T) {y : U}``."""
    found: list[str] = []
    depth = begin = 0
    for place, character in enumerate(bound):
        if character in _OPENING:
            begin, depth = (place + 1 if depth == 0 else begin), depth + 1
        elif character in _CLOSING:
            depth -= 1
            if depth == 0:
                found.append(bound[begin:place])
        elif depth == 0 and not character.isspace():
            return None
    return found


def _premise(statement: str) -> tuple[list[tuple[str, str]], str] | None:
    """The premise before the first arrow, and what follows it."""
    arrow = _at_surface(statement, "→", 0, len(statement))
    if arrow is None or not statement[:arrow].strip():
        return None
    return [("", statement[:arrow].strip())], statement[arrow + 1 :].strip()


def _unwrapped(text: str) -> str:
    while text.startswith("(") and text.endswith(")") and _at_surface(text[1:-1], ")", 0, len(text) - 2) is None:
        depth = 0
        for character in text[1:-1]:
            depth += (character in _OPENING) - (character in _CLOSING)
            if depth < 0:
                return text
        text = text[1:-1].strip()
    return text


def _renamed(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![\w.'!?]){re.escape(old)}(?![\w'!?])", new, text)


def _at_surface(text: str, mark: str, start: int, stop: int) -> int | None:
    """Index of the first ``mark`` outside brackets."""
    depth = 0
    for place in range(start, stop):
        if depth == 0 and text.startswith(mark, place):
            return place
        depth += (text[place] in _OPENING) - (text[place] in _CLOSING)
    return None


def _surface_words(text: str) -> Iterator[str]:
    depth = place = 0
    while place < len(text):
        if word := _WORD.match(text, place):
            if depth == 0:
                yield word[0]
            place = word.end()
            continue
        depth += (text[place] in _OPENING) - (text[place] in _CLOSING)
        place += 1


def _balanced(text: str) -> bool:
    return find_open_end(text.replace(":=", "  ")) is None


def _ink(text: str, start: int) -> int:
    """Index of the first character from ``start`` on that is no white space."""
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _trimmed(text: str, start: int, stop: int) -> int:
    return start + len(text[start:stop].rstrip())


def _column(text: str, place: int) -> int:
    return place - text.rfind("\n", 0, place) - 1


def _column_of_line(text: str, piece: tuple[int, int]) -> int:
    """Column at which the line of a step begins; that of the step where others precede it on the line."""
    begin = text.rfind("\n", 0, piece[0]) + 1
    return _column(text, piece[0]) if not text[begin : piece[0]].strip() else 1 << 30
