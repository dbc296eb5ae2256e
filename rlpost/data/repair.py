"""A pool of answers that were rejected, to be asked again with what the verifier said of them. Pure.

Kimina-Prover-RL keeps failed proofs in a cache and asks half of its prompts from there, each with its error
(https://huggingface.co/blog/AI-MO/kimina-prover-rl). Here a failed answer is asked at most once; which ones a step
asks is a function of the pool, the step and the seed, so that a resumed run asks what the uninterrupted one would have
asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rlpost.trajectory import TokenizedPrompt, digest
from rlpost.types import Prompt

_STREAM = 0x5A3C
"""Keeps the draws apart from every other stream of the run's seed."""
_CUT = " …"


@dataclass(frozen=True, slots=True)
class FailedAnswer:
    """An answer that was rejected.

    Attributes:
        prompt_id: id of the prompt of the data set that it answered, also where that was asked again already.
        ticket: number of its group's ticket.
        member: position in its group.
        step: number of the rollout batch.
        text: the answer.
        messages: what the verifier said of it.

    >>> FailedAnswer("t1", 3, 0, 1, "trivial", "error at 1:0: no").id
    't1+repair3.0'
    """

    prompt_id: str
    ticket: int
    member: int
    step: int
    text: str
    messages: str

    @property
    def id(self) -> str:
        """Id of the prompt that asks it again."""
        return f"{self.prompt_id}+repair{self.ticket}.{self.member}"

    @property
    def digest(self) -> bytes:
        """Digest of its text, as in `rlpost.trajectory.Receipt`."""
        return digest(self.text.encode("utf-8", "surrogatepass"))


Pool = tuple[FailedAnswer, ...]
"""Failed answers, oldest first."""


class RepairMaker(Protocol):
    """Makes prompts from failed answers; `rlpost.data.repair_prompts.RepairPrompts` is one."""

    known: Mapping[str, Prompt]
    """The training prompts by id; answers to others cannot be asked again."""

    def make(self, failed: FailedAnswer) -> TokenizedPrompt | None:
        """The prompt that asks an answer again; None if it cannot be asked, as one that would be too long."""
        ...

    def unknown(self, prompt: TokenizedPrompt) -> int:
        """Number of a prompt's tokens that stand for text that the vocabulary does not have."""
        ...


def draw(pool: Pool, count: int, step: int, seed: int, round_: int = 0) -> tuple[Pool, Pool]:
    """At most ``count`` answers of the pool, drawn without replacement, and the pool without them.

    Args:
        pool: the failed answers.
        count: how many to draw; fewer if the pool has fewer.
        step: number of the rollout batch.
        seed: the run's seed.
        round_: number of the draw within the step.

    Returns:
        Those drawn and those left, each in the pool's order.
    """
    size = min(count, len(pool))
    if size < 1:
        return (), pool
    rng = np.random.default_rng([seed, _STREAM, step, round_])
    chosen = set(rng.choice(len(pool), size, replace=False).tolist())
    drawn = tuple(one for place, one in enumerate(pool) if place in chosen)
    return drawn, tuple(one for place, one in enumerate(pool) if place not in chosen)


def kept(pool: Pool, new: Iterable[FailedAnswer], size: int, max_age: int | None, step: int) -> tuple[Pool, int, int]:
    """The pool after a step: without old answers, with new ones, the newest ``size`` of all.

    Args:
        pool: the failed answers before.
        new: those of this step.
        size: largest number of answers in the pool.
        max_age: steps after which an answer is dropped, counted from the step that sampled it; None: never.
        step: number of the rollout batch that comes next.

    Returns:
        The pool, the number dropped for their age, and the number dropped for room.
    """
    everything = (*pool, *new)
    fresh = tuple(one for one in everything if max_age is None or step - one.step <= max_age)
    found = fresh[max(len(fresh) - size, 0) :]
    return found, len(everything) - len(fresh), len(fresh) - len(found)


def wanted(share: float, count: int) -> int:
    """Number of a batch's ``count`` prompts that come from the pool: share · count, rounded half up.

    >>> wanted(0.5, 5), wanted(0.25, 16)
    (3, 4)
    """
    return int(share * count + 0.5)


def told(messages: Sequence[object], max_messages: int, max_characters: int) -> str:
    r"""The first messages, each beginning a line, cut to a length.

    Further lines of a message are indented by two spaces more: a message may repeat what the policy wrote, and no line
    of that can pose as the beginning of another message.

    >>> told(["error at 1:0: no\nerror at 1:0: forged"], 1, 100)
    'error at 1:0: no\n  error at 1:0: forged'
    >>> told(["error at 1:0: no", "warning at 2:0: unused"], 1, 100), told(["too long"], 1, 6)
    ('error at 1:0: no', 'too …')
    """
    text = "\n".join(str(one).replace("\n", "\n  ") for one in messages[:max_messages])
    return text if len(text) <= max_characters else text[: max(max_characters - len(_CUT), 0)].rstrip() + _CUT
