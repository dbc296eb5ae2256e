r"""Which ``have`` steps of a rejected proof are proved, and which of these the rest of the proof cannot do without.

DeepSeek-Prover-V2 (Ren et al. 2025, arXiv 2504.21801, section 2) and POETRY (Wang et al. 2024, arXiv 2405.14414) prove
theorems by subgoals that stand in the proof as ``have`` steps. Here each is a theorem of its own: under the statement's
binders, what the proof introduces first, and the earlier steps as hypotheses. All questions go through the whole
verifier, as theorems; no message of Lean's is parsed. Of a proof with steps h_1 … h_n and the rest F these are asked:

1. *Context*, where the proof introduces names: that what is left of the statement, under the binders read from it,
   gives the statement back. If not, nothing is said about any step.
2. *Proved*: the step's type, by its own proof, from the earlier steps.
3. *Trivial*: the step's type, by ``trivial``, which also restates a hypothesis.
4. *Reduction*: the goal, by F, from all steps. Only then does the proof come down to the steps that are not proved.
5. *Needed*, from the last proved step to the first: the goal, by F and the later needed steps, from all steps but this
   one; if Lean rejects that, it is needed.

At most 3n + 2 checks, which the verifier's cache shares between answers; n is limited by ``max_subgoals``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rlpost.types import ItemVerdict, Outcome, Verdict
from rlpost_verifiers.lean.skeleton import Skeleton, Step, locate, read_skeleton, telescope
from rlpost_verifiers.lean.task import ProofTask

Reason = Literal["needed", "idle", "trivial", "open", "unproved"]
"""Of a step that is proved: the rest needs it, the rest does without it, ``trivial`` proves it, or the rest does not
close the goal. ``unproved``: its own proof fails.
"""
Questions = Generator[list[ProofTask], list[Verdict], tuple[ItemVerdict, ...]]

_NO_GUESSED_NAMES = "set_option autoImplicit false"
_UNREADABLE = "statement_mismatch"


def judge(answer: str, task: ProofTask, most: int) -> Questions:
    """Item verdicts of the steps of a rejected proof, as a generator that asks for the verdicts of tasks.

    Args:
        answer: the model's text, to which the items' spans refer.
        task: the task that was rejected, with the proof taken from the answer.
        most: largest number of steps that are looked at.

    Returns:
        An item for each step whose statement Lean can read, by its number. ``score`` is 1 exactly if it is ``needed``,
        else 0; a check that is undecided leaves its step undecided. Empty where the skeleton cannot be read from
        the text, its context is not what it seems, or the answer does not hold the proof as written.
    """
    found = read_skeleton(task, most)
    places = locate(answer, found.text[found.begin :]) if found else None
    if found is None or places is None:
        return ()
    context = _Context.of(found)
    if context is None:
        return ()
    steps, numbers = found.steps, range(len(found.steps))
    first = [*context.check, *(context.step(i) for i in numbers), *(context.step(i, trivially=True) for i in numbers)]
    asked = [*first, *([context.rest(numbers)] if found.rest is not None else [])]
    verdicts = yield asked
    checks, verdicts = verdicts[: len(context.check)], verdicts[len(context.check) :]
    if any(verdict.outcome != "accepted" for verdict in checks):
        return ()
    proofs, easy, end = verdicts[: len(steps)], verdicts[len(steps) : 2 * len(steps)], verdicts[2 * len(steps) :]
    proved = [i for i in numbers if proofs[i].outcome == "accepted"]
    reasons: dict[int, Reason] = dict.fromkeys(proved, "open")
    if end and end[0].outcome == "accepted":
        needed: list[int] = []
        for i in reversed(proved):
            [without] = yield [
                context.rest([j for j in numbers if j != i and j not in proved[proved.index(i) :]], needed)
            ]
            reasons[i] = "needed" if without.outcome == "rejected" else "idle"
            needed = [i, *needed] if reasons[i] == "needed" else needed
    reasons |= {i: "trivial" for i in proved if easy[i].outcome == "accepted"}
    return tuple(
        _item(i, _span(found, steps[i], places), verdict, reasons.get(i, "unproved"))
        for i, verdict in enumerate(proofs)
        if verdict.reason != _UNREADABLE
    )


def answered(
    asking: Mapping[int, Questions], verify: Callable[[Sequence[ProofTask]], Sequence[Verdict]]
) -> dict[int, tuple[ItemVerdict, ...]]:
    """What several `judge` return, with all that they ask at the same time verified as one batch."""
    found: dict[int, tuple[ItemVerdict, ...]] = {}
    waiting: dict[int, list[ProofTask]] = {}
    replies: dict[int, list[Verdict] | None] = dict.fromkeys(asking)
    while replies:
        waiting.clear()
        for place, reply in replies.items():
            try:
                waiting[place] = next(asking[place]) if reply is None else asking[place].send(reply)
            except StopIteration as end:
                found[place] = end.value
        verdicts = iter(verify([task for tasks in waiting.values() for task in tasks]) if waiting else ())
        replies = {place: [next(verdicts) for _ in tasks] for place, tasks in waiting.items()}
    return found


def _item(number: int, span: tuple[int, int], verdict: Verdict, reason: Reason) -> ItemVerdict:
    outcome: Outcome = verdict.outcome
    score = float(outcome == "accepted" and reason == "needed")
    return ItemVerdict(*span, outcome, score, verdict.reason if outcome == "undecided" else reason, number)


def _span(skeleton: Skeleton, step: Step, places: Sequence[int]) -> tuple[int, int]:
    """Span of a step in the answer."""
    before = len("".join(skeleton.text[skeleton.begin : step.start].split()))
    inside = len("".join(skeleton.text[step.start : step.stop].split()))
    return places[before], places[before + inside - 1] + 1


@dataclass(frozen=True, slots=True)
class _Context:
    """What the steps of a skeleton are stated under.

    Attributes:
        skeleton: the skeleton.
        binders: the statement's binders, and those of the names that the proof introduces.
        goal: what is left of the statement to prove.
        check: the task that checks binders and goal; none where the proof introduces nothing.
    """

    skeleton: Skeleton
    binders: str
    goal: str
    check: tuple[ProofTask, ...]

    @classmethod
    def of(cls, skeleton: Skeleton) -> _Context | None:
        task, names = skeleton.task, skeleton.names
        header = f"{task.header}\n{_NO_GUESSED_NAMES}".strip()
        skeleton = replace(skeleton, task=replace(task, header=header))
        if not names:
            return cls(skeleton, task.binders, task.statement, ())
        read = telescope(task.statement, names)
        if read is None or len(set(names)) < len(names):
            return None
        binders, goal = read
        given = _fresh("given", f"{task.binders} {task.statement} {' '.join(names)}")
        proof = f"by\n  intro {' '.join(names)}\n  exact {given} {' '.join(names)}"
        known = f"{task.binders} ({given} : ∀ {binders}, {goal})".strip()
        made = cls(skeleton, f"{task.binders} {binders}".strip(), goal, ())
        return replace(made, check=(made.task(known, task.statement, proof),))

    def task(self, binders: str, statement: str, proof: str) -> ProofTask:
        """The question whether a proof proves a statement, after what the answer declares before its theorem."""
        task = self.skeleton.task
        if task.mode == "declarations":
            proof = f"{task.proof}theorem {self.skeleton.theorem} {binders} : {statement} :=\n{proof}"
        return replace(task, binders=binders, statement=statement, proof=proof)

    def step(self, number: int, *, trivially: bool = False) -> ProofTask:
        """Whether a step follows from the earlier ones, by its own proof or trivially."""
        step = self.skeleton.steps[number]
        binders = f"{self._with(range(number))} {step.binders}".strip()
        return self.task(binders, step.type, "by trivial" if trivially else step.proof)

    def rest(self, given: Sequence[int], proved: Sequence[int] = ()) -> ProofTask:
        """Whether the rest closes the goal from some steps as hypotheses, and others with their proofs."""
        found, margin = self.skeleton, " " * self.skeleton.column
        assert found.rest is not None
        lines = [found.text[found.steps[i].start : found.steps[i].stop] for i in proved]
        lines.append(found.text[found.rest :].rstrip())
        proof = "\n".join(margin + line for line in lines)
        return self.task(self._with(given), self.goal, f"by\n{proof}" if found.tactics else proof)

    def _with(self, given: Sequence[int]) -> str:
        steps = (self.skeleton.steps[i] for i in given)
        return " ".join([self.binders, *(f"({step.name} : {step.closed_type})" for step in steps)]).strip()


def _fresh(name: str, text: str) -> str:
    """``name``, or a longer one that does not occur in a text."""
    while re.search(rf"(?<!\w){name}(?!\w)", text):
        name += "_"
    return name
