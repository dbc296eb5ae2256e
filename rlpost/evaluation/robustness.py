"""What text in an item's description does to its exposure: paired differences over prompts, attack by attack."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlpost.algorithms.intervals import with_errors
from rlpost.errors import UserError

_YEAR = re.compile(r"\s*\((?:1[89]|20)\d\d\)$")


@dataclass(frozen=True, slots=True)
class RobustnessSettings:
    """What is attacked, and how hard.

    Attributes:
        key: column with a prompt's candidates; without it, items are those that the policy recommends and a prompt
            describes.
        targets: number of items that are attacked, one at a time.
        prompts: most prompts per item.
        words: number of words of the sequence that is searched for, and of the random text next to which attacks stand.
        queries: sequences that the search tries for each item; 0: no search.
        at_once: sequences tried in one batch.
        seed: seed of the search.

    >>> RobustnessSettings().words
    12
    """

    key: str = "candidates"
    targets: int = 5
    prompts: int = 20
    words: int = 12
    queries: int = 60
    at_once: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("targets", 1), ("prompts", 2), ("words", 1), ("queries", 0), ("at_once", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"robustness: {name} is {value!r}; give a whole number from {least} on")
        if not isinstance(self.key, str) or not self.key:
            raise UserError(f"robustness: key is {self.key!r}; give the name of a column")


@dataclass(frozen=True, slots=True)
class Answer:
    """The list that the policy answers a prompt with.

    Attributes:
        items: item at each place; None for a place without one.
        ndcg: nDCG@10 of the list; None where the prompt has nothing relevant.

    >>> Answer(("Up (2009)", "Alien (1979)")).discount("Alien (1979)")
    0.6309297535714575
    """

    items: tuple[str | None, ...]
    ndcg: float | None = None

    def discount(self, item: str) -> float:
        """1 / log2(r + 1) at the item's first rank r, 0 if it is not in the list."""
        for rank, one in enumerate(self.items, 1):
            if one is not None and same_item(one, item):
                return 1.0 / math.log2(rank + 1)
        return 0.0


def same_item(first: str, second: str) -> bool:
    """Whether two names are one item's: equal but for case, and for the year where only one has it.

    >>> same_item("Alien (1979)", "alien"), same_item("Alien (1979)", "Alien (1992)")
    (True, False)
    """
    a, b = first.casefold().strip(), second.casefold().strip()
    bare = _YEAR.sub("", a), _YEAR.sub("", b)
    return a == b or (bare[0] == bare[1] and (a == bare[0]) != (b == bare[1]))


@dataclass(frozen=True, slots=True)
class Trial:
    """One attack on one item in one prompt.

    Attributes:
        item: the attacked item.
        prompt: id of the prompt.
        cluster: what the prompt has in common with others; empty: nothing.
        attack: name of the attack.
        defence: name of the defence.
        before: discount of the item without the attack, under the same defence; None if undecided.
        after: with it; None if undecided or too long.
        text: the attack's text.

    >>> Trial("Up (2009)", "q1", "", "authority", "none", 0.0, 1.0).after
    1.0
    """

    item: str
    prompt: str
    cluster: str
    attack: str
    defence: str
    before: float | None
    after: float | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Quality:
    """nDCG@10 of lists without any attack, by prompt: what a defence costs.

    >>> Quality("q1", "", "strip", 0.5, 0.4).after
    0.4
    """

    prompt: str
    cluster: str
    defence: str
    before: float
    after: float


def attack_figures(trials: Sequence[Trial]) -> list[dict[str, str | float]]:
    """A row for each attack under each defence, in the order of the trials.

    Returns:
        ``attack``, ``defence``, ``pairs`` of item and prompt, ``lost`` pairs without an answer; ``listed before`` and
        ``listed after``, shares of lists with the item; ``listed`` and ``discount``, the mean paired differences of
        presence and of the discount of its rank, each with standard error and 95 % interval over clusters of prompts.
        Figures are missing where no pair has both answers.
    """
    found: list[dict[str, str | float]] = []
    for attack, defence in dict.fromkeys((one.attack, one.defence) for one in trials):
        own = [one for one in trials if (one.attack, one.defence) == (attack, defence)]
        known = [(one, one.before, one.after) for one in own if one.before is not None and one.after is not None]
        row: dict[str, str | float] = {"attack": attack, "defence": defence}
        row |= {"pairs": float(len(own)), "lost": float(len(own) - len(known))}
        if known:
            clusters = [_cluster(one.prompt, one.cluster) for one, _, _ in known]
            row["listed before"] = sum(b > 0 for _, b, _ in known) / len(known)
            row["listed after"] = sum(a > 0 for _, _, a in known) / len(known)
            row |= with_errors("listed", [float(a > 0) - float(b > 0) for _, b, a in known], clusters)
            row |= with_errors("discount", [a - b for _, b, a in known], clusters)
        found.append(row)
    return found


def quality_figures(found: Sequence[Quality]) -> list[dict[str, str | float]]:
    """A row for each defence: ``ndcg@10`` under it, and ``change``, the mean paired difference to no defence with
    standard error and 95 % interval.
    """
    rows: list[dict[str, str | float]] = []
    for defence in dict.fromkeys(one.defence for one in found):
        own = [one for one in found if one.defence == defence]
        clusters = [_cluster(one.prompt, one.cluster) for one in own]
        row: dict[str, str | float] = {"defence": defence, "prompts": float(len(own))}
        row["ndcg@10"] = sum(one.after for one in own) / len(own)
        rows.append(row | with_errors("change", [one.after - one.before for one in own], clusters))
    return rows


def _cluster(prompt: str, cluster: str) -> str:
    return f"cluster {cluster}" if cluster else f"prompt {prompt}"
