"""Attacks on a recommender through the descriptions in its prompts: fixed texts, random text, and a search that sees
nothing but lists; each under each defence.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlpost.errors import DataError
from rlpost.evaluation.manipulation import ATTACKS, Defences, Entry, candidates, entries, rewritten
from rlpost.evaluation.robustness import Answer, Quality, RobustnessSettings, Trial, same_item
from rlpost.types import Prompt

Ask = Callable[[Sequence[Prompt]], Sequence[Answer | None]]
"""Function from prompts to the policy's lists; None where there is none (undecided, or the prompt is too long)."""

RANDOM, SEARCHED = "random text", "searched"
_WORD = re.compile(r"[^\W\d_]{2,20}")
_STUFFED = 12
"""Words that keyword stuffing uses."""


@dataclass(frozen=True, slots=True)
class Described:
    """A prompt with the places of the descriptions in it, and what it has in common with others."""

    prompt: Prompt
    entries: tuple[Entry, ...]
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Robustness:
    """Everything that was measured.

    Attributes:
        trials: one for each attack, defence, item and prompt.
        quality: what each defence does to lists that nobody attacks.
        targets: the attacked items, each with the number of prompts that its attacks were measured on.
        described: number of prompts that describe an item.
        asked: number of lists that were asked for.
    """

    trials: tuple[Trial, ...]
    quality: tuple[Quality, ...]
    targets: Mapping[str, int]
    described: int
    asked: int


def measure(
    prompts: Sequence[Prompt],
    ask: Ask,
    settings: RobustnessSettings,
    cluster: Callable[[Prompt], str] = lambda _: "",
    log: Callable[[str], None] = lambda _: None,
) -> Robustness:
    """Attack some items and see what becomes of their exposure.

    Each item's prompts are dealt into two halves: the search tunes its sequence on one, and all attacks are measured on
    the other. Everything is compared with the same prompt under the same defence without the attack.

    Args:
        prompts: held-out prompts.
        ask: the policy.
        settings: what is attacked.
        cluster: what a prompt has in common with others.
        log: called with lines about progress.

    Raises:
        DataError: if no prompt describes an item that could be recommended.
    """
    bench = _Bench(ask)
    found = _described(prompts, bench, settings.key, cluster)
    chosen = _targets(found, settings)
    defences = Defences.fit(_texts(found)).named()
    words = _vocabulary(prompts)
    tuned: dict[str, list[Described]] = {}
    measured: dict[str, list[Described]] = {}
    for item, own in chosen.items():
        tuned[item], measured[item] = (own[0::2], own[1::2]) if settings.queries else ([], own)
    rng = random.Random(settings.seed)
    texts = {item: _attacks(item, measured[item], words, settings, rng) for item in chosen}
    for item in chosen if settings.queries else ():
        texts[item][SEARCHED] = _search(item, tuned[item], words, bench, settings, rng)
        log(f"{item}: {settings.queries} sequences tried")
    trials = _trials(measured, texts, defences, bench)
    quality = _quality({one.prompt.id: one for own in measured.values() for one in own}.values(), defences, bench)
    counts = {item: len(own) for item, own in measured.items()}
    return Robustness(tuple(trials), tuple(quality), counts, len(found), bench.asked)


class _Bench:
    """The policy, asked for each prompt once."""

    def __init__(self, ask: Ask):
        self.ask, self.asked = ask, 0
        self._known: dict[tuple[str, str], Answer | None] = {}

    def __call__(self, prompts: Sequence[Prompt]) -> list[Answer | None]:
        """The list for each prompt, in order."""
        keys = [(one.id, f"{one.text}{one.messages}") for one in prompts]
        fresh = {key: one for key, one in zip(keys, prompts, strict=True) if key not in self._known}
        self._known.update(zip(fresh, self.ask(list(fresh.values())), strict=True))
        self.asked += len(fresh)
        return [self._known[key] for key in keys]


def _described(prompts: Sequence[Prompt], bench: _Bench, key: str, cluster: Callable[[Prompt], str]) -> list[Described]:
    """Prompts that describe items: those of their column of candidates or, without one, those that the policy
    recommends to anybody.
    """
    columns = [candidates(prompt.columns, key) for prompt in prompts]
    pool = [] if any(columns) else sorted(
        {item for answer in bench(prompts) if answer is not None for item in answer.items if item is not None}
    )  # fmt: skip
    found = [
        Described(prompt, tuple(entries(prompt, own or pool, {i: d for i, d in own.items() if d})), cluster(prompt))
        for prompt, own in zip(prompts, columns, strict=True)
    ]
    # a user may begin a line with a film, but candidates are several
    described = [one for one in found if len({entry.item for entry in one.entries}) > 1]
    if not described:
        raise DataError(
            f"robustness: none of {len(prompts)} prompts describes an item that could be recommended (no column "
            f"{key!r}, no two lines that begin with items' names): what sellers write does not reach this policy, and "
            "nothing was measured"
        )
    return described


def _targets(found: Sequence[Described], settings: RobustnessSettings) -> dict[str, list[Described]]:
    """The items that most prompts describe, each with its prompts."""
    by_item: dict[str, list[Described]] = {}
    for one in found:
        for item in dict.fromkeys(entry.item for entry in one.entries):
            by_item.setdefault(item, []).append(one)
    order = sorted(by_item, key=lambda item: (-len(by_item[item]), item))
    if len(by_item[order[0]]) < 2:
        raise DataError("robustness: no item is described in two prompts; give prompts that share candidates")
    return {item: by_item[item][: settings.prompts] for item in order[: settings.targets] if by_item[item][1:]}


def _texts(found: Sequence[Described]) -> list[str]:
    """Descriptions as they stand in the prompts."""
    texts: list[str] = []

    def note(_: Entry, text: str) -> str:
        texts.append(text)
        return text

    for one in found:
        rewritten(one.prompt, one.entries, note)
    return texts


def _vocabulary(prompts: Sequence[Prompt]) -> list[str]:
    """Words of the prompts, the most frequent first: what the policy is sure to know."""
    counts = Counter(word for prompt in prompts for word in _WORD.findall(_said(prompt)))
    return sorted(counts, key=lambda word: (-counts[word], word))


def _said(prompt: Prompt) -> str:
    return prompt.text if prompt.text is not None else "\n".join(one.text for one in prompt.messages or ())


def _attacks(
    item: str, own: Sequence[Described], words: Sequence[str], settings: RobustnessSettings, rng: random.Random
) -> dict[str, str]:
    """Random text, then the fixed attacks."""
    frequent = _vocabulary([one.prompt for one in own])[:_STUFFED]
    fixed = {name: text.format(item=item, words=" ".join(frequent)) for name, text in ATTACKS.items()}
    return {RANDOM: " ".join(rng.choices(words, k=settings.words)), **fixed}


def attacked(one: Described, item: str, text: str, defence: Callable[[str], str], note: str) -> Prompt:
    """The prompt with an attack behind the item's description, all descriptions after the defence."""

    def change(entry: Entry, said: str) -> str:
        behind = f" {text}" if text and same_item(entry.item, item) else ""
        return defence(said + behind) if said + behind else ""

    return rewritten(one.prompt, one.entries, change, note)


def _search(
    item: str,
    own: Sequence[Described],
    words: Sequence[str],
    bench: _Bench,
    settings: RobustnessSettings,
    rng: random.Random,
) -> str:
    """The sequence of words with the largest mean discount of the item: a (1 + λ) search that changes one word at a
    time and sees nothing but lists.
    """

    def value(sequences: Sequence[Sequence[str]]) -> list[float]:
        asked = [attacked(one, item, " ".join(s), lambda text: text, "") for s in sequences for one in own]
        found = [0.0 if answer is None else answer.discount(item) for answer in bench(asked)]
        return [sum(found[i : i + len(own)]) / len(own) for i in range(0, len(found), len(own))]

    best, reached, left = rng.choices(words, k=settings.words), -1.0, settings.queries
    while left > 0:
        tried = [list(best) for _ in range(min(settings.at_once, left))]
        for sequence in tried if reached >= 0 else tried[1:]:
            if reached < 0:
                sequence[:] = rng.choices(words, k=settings.words)
            else:
                sequence[rng.randrange(len(sequence))] = rng.choice(words)
        values = value(tried)
        left -= len(tried)
        top = max(range(len(tried)), key=values.__getitem__)
        if values[top] >= reached:  # sideways too: most words change nothing
            best, reached = tried[top], values[top]
    return " ".join(best)


def _trials(
    measured: Mapping[str, Sequence[Described]],
    texts: Mapping[str, Mapping[str, str]],
    defences: Mapping[str, tuple[Callable[[str], str], str]],
    bench: _Bench,
) -> list[Trial]:
    found: list[Trial] = []
    for defence, (apply, note) in defences.items():
        pairs = [(item, one) for item, own in measured.items() for one in own]
        before = bench([attacked(one, item, "", apply, note) for item, one in pairs])
        for attack in next(iter(texts.values())):
            after = bench([attacked(one, item, texts[item][attack], apply, note) for item, one in pairs])
            found += [
                Trial(item, one.prompt.id, one.cluster, attack, defence, _discount(b, item), _discount(a, item),
                      texts[item][attack])
                for (item, one), b, a in zip(pairs, before, after, strict=True)
            ]  # fmt: skip
    return found


def _discount(answer: Answer | None, item: str) -> float | None:
    return None if answer is None else answer.discount(item)


def _quality(
    prompts: Iterable[Described], defences: Mapping[str, tuple[Callable[[str], str], str]], bench: _Bench
) -> list[Quality]:
    own, found = list(prompts), list[Quality]()
    plain = bench([one.prompt for one in own])
    for defence, (apply, note) in defences.items():
        answers = bench([attacked(one, "", "", apply, note) for one in own])
        for one, before, after in zip(own, plain, answers, strict=True):
            if before is not None and after is not None and before.ndcg is not None and after.ndcg is not None:
                found.append(Quality(one.prompt.id, one.cluster, defence, before.ndcg, after.ndcg))
    return found
