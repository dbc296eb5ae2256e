"""Whether a text proves the statement as written, or through a definition of its own that unfolds to it.

Either is a proof, since the kernel checks the pin. But a model that is rewarded for the second learns to hide what it
states, and the embedded backend, which compares types without unfolding, would not accept it.
"""

from __future__ import annotations

from itertools import pairwise

from rlpost_verifiers.lean.source import THEOREM
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.text import Word, words

_DECLARING = ("def", "abbrev", "theorem", "lemma", "structure", "inductive", "class", "instance", "alias")
_PROVING = ("theorem", "lemma")
_OPENING, _CLOSING = "([{⟨⦃", ")]}⟩⦄"


def find_evasion(text: str, task: ProofTask) -> str | None:
    r"""Why ``text``, declarations without comments, does not state the theorem as the task does, or None.

    >>> find_evasion("abbrev Goal := True\ntheorem X : Goal := trivial", ProofTask("True", "", mode="file"))
    "the statement of X mentions 'Goal', which the file itself declares"
    >>> find_evasion("theorem X : True := trivial", ProofTask("True", "", mode="file")) is None
    True
    """
    wanted = task.theorem if task.mode == "declarations" else THEOREM
    declared: list[str] = []
    shadowing: list[str] = []
    found = list(words(text))
    for keyword, name in pairwise(found):
        if keyword.text not in _DECLARING or text[keyword.end : name.start].strip():
            continue
        own = name.text.removeprefix("_root_.")
        if own != wanted and not wanted.endswith(f".{own}"):
            declared.append(own)
            if task.mode == "declarations" and keyword.text not in _PROVING:
                shadowing.append(own)
        elif keyword.text not in _PROVING:
            return f"{wanted} is declared by {keyword.text!r}; prove it as a theorem"
        elif hidden := _find_declared(_signature(text, name), declared, shadowing, task):
            return f"the statement of {wanted} mentions {hidden!r}, which the file itself declares"
    return None


def _signature(text: str, name: Word) -> str:
    depth = 0
    for index in range(name.end, len(text)):
        depth += (text[index] in _OPENING) - (text[index] in _CLOSING)
        if depth == 0 and text.startswith(":=", index):
            return text[name.end : index]
    return text[name.end :]


def _find_declared(signature: str, declared: list[str], shadowing: list[str], task: ProofTask) -> str | None:
    given = {word.text for word in words(f"{task.binders} {task.statement}")}
    for word in words(signature):
        # Namespaces may be open on either side: "Goal" may mean "X.Goal", and "A.Goal" be declared as "Goal" within A.
        known = (
            name == word.text or name.endswith(f".{word.text}") or word.text.endswith(f".{name}") for name in declared
        )
        if any(known) and (word.text not in given or word.text in shadowing):
            return word.text
    return None
