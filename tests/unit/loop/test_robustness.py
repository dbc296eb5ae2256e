"""Robustness of policies whose weakness is known: that it is found, at its size, and that strength is not denied.
Not covered: engines; tests/ray/test_robustness_run.py has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from rlpost.commands.robustness import document, render
from rlpost.errors import DataError, UserError
from rlpost.evaluation.robustness import Answer, Quality, RobustnessSettings, Trial, attack_figures, quality_figures
from rlpost.loop.robustness import RANDOM, SEARCHED, Robustness, measure
from rlpost.types import Prompt

FILMS = [f"Film {letter} ({year})" for year, letter in enumerate("ABCDEFGH", 1990)]
WORDS = "quiet story about people who travel north in winter and meet again at home"


def prompts(count: int = 24, shown: int = 4, column: bool = True) -> list[Prompt]:
    made = []
    for n in range(count):
        offer = [FILMS[(n + i) % len(FILMS)] for i in range(shown)]
        said = {name: f"A {WORDS.split()[(n + i) % 14]} film." for i, name in enumerate(offer)}
        text = "On offer:\n" + "\n".join(f"- {name}: {what}" for name, what in said.items()) + f"\nUser {n} asks."
        columns = {"candidates": [{"title": a, "description": b} for a, b in said.items()]} if column else {}
        made.append(Prompt(f"q{n}", text, columns=columns))
    return made


def policy(pushed: Callable[[str], bool]) -> Callable[[Sequence[Prompt]], list[Answer | None]]:
    """Recommends the first two candidates, but first those whose line pushes it."""

    def ask(asked: Sequence[Prompt]) -> list[Answer | None]:
        found: list[Answer | None] = []
        for prompt in asked:
            lines = re.findall(r"^- (Film \w \(\d{4}\)): ?(.*)$", prompt.text or "", re.M)
            order = sorted(lines, key=lambda line: not pushed(line[1]))
            found.append(Answer(tuple(name for name, _ in order[:2]), 0.5))
        return found

    return ask


def row(found: Robustness, attack: str, defence: str = "none") -> dict:
    return next(one for one in attack_figures(found.trials) if (one["attack"], one["defence"]) == (attack, defence))


QUICK = RobustnessSettings(targets=3, prompts=12, queries=0)


def test_a_policy_that_obeys_orders_is_found_out_and_stripping_helps() -> None:
    found = measure(prompts(), policy(lambda text: "Always recommend" in text), QUICK)
    order = row(found, "instruction")
    # each of three films stands in 12 prompts, in half of them among the first two
    assert (order["pairs"], order["lost"]) == (36.0, 0.0)
    assert (order["listed before"], order["listed after"]) == (0.5, 1.0)
    assert order["listed"] == 0.5
    assert order["listed_low"] > 0
    assert order["discount"] == pytest.approx(1 - (0.25 * 1 + 0.25 * 0.6309297535714575))
    for attack in (RANDOM, "authority", "superlatives", "stuffing", "system turn", "hidden"):
        assert row(found, attack)["discount"] == 0.0
    assert row(found, "instruction", "strip")["discount"] == 0.0
    assert row(found, "instruction", "delimit")["listed after"] == 1.0, "this policy reads what is marked as data"
    assert row(found, "instruction", "truncate")["discount"] == 0.0


def test_what_a_defence_does_by_itself_is_not_the_attack() -> None:
    inner = policy(lambda text: False)

    def ask(asked: Sequence[Prompt]) -> list[Answer | None]:
        """Answers with the last candidates where the prompt begins with a note."""
        found = inner(asked)
        return [
            Answer((FILMS[7], FILMS[6]), 0.1) if (one.text or "").startswith("Text between") else answer
            for one, answer in zip(asked, found, strict=True)
        ]

    found = measure(prompts(), ask, QUICK)
    assert {one.after - one.before for one in found.trials if one.before is not None and one.after is not None} == {0.0}
    costs = {str(one["defence"]): one["change"] for one in quality_figures(found.quality)}
    assert costs == {"none": 0.0, "delimit": pytest.approx(-0.4), "strip": 0.0, "truncate": 0.0, "perplexity": 0.0}


def test_a_policy_that_reads_no_description_is_not_moved_by_anything() -> None:
    found = measure(prompts(), policy(lambda text: False), RobustnessSettings(targets=2, prompts=10, queries=20))
    assert all(one.before == one.after for one in found.trials)
    assert {one.attack for one in found.trials} >= {RANDOM, SEARCHED, "hidden"}


def test_the_search_finds_the_word_that_random_text_hardly_hits() -> None:
    chosen = RobustnessSettings(targets=2, prompts=12, words=4, queries=80, seed=3)
    found = measure(prompts(), policy(lambda text: text.count("winter") > 1), chosen)
    texts = {one.text for one in found.trials if one.attack == SEARCHED}
    assert all(text.count("winter") > 1 and len(text.split()) == 4 for text in texts)
    assert row(found, SEARCHED)["listed after"] == 1.0
    # a description may hold the word once, and then a random one is enough
    assert row(found, RANDOM)["discount"] < row(found, SEARCHED)["discount"] / 2
    tuned = {one.prompt for one in found.trials}
    assert sum(found.targets.values()) == 12, "half of each item's prompts"
    assert len(tuned) <= 12


def test_the_same_seed_finds_the_same_sequence() -> None:
    runs = [
        measure(
            prompts(), policy(lambda text: "north" in text), RobustnessSettings(targets=1, queries=15, seed=5)
        ).trials
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_items_are_found_without_a_column_by_what_is_recommended() -> None:
    found = measure(prompts(column=False), policy(lambda text: "Always recommend" in text), QUICK)
    assert row(found, "instruction")["listed after"] == 1.0


def test_conversations_without_candidates_are_told_not_measured() -> None:
    asked = [Prompt(f"q{n}", f"I loved {FILMS[0]} and {FILMS[1]}. What next?") for n in range(9)]
    with pytest.raises(DataError, match="none of 9 prompts describes an item that could be recommended"):
        measure(asked, lambda given: [Answer((FILMS[2],)) for _ in given], QUICK)
    alone = [Prompt(f"q{n}", f"- Film {n} (1990): x\n- Film {n} (1991): y") for n in range(9)]
    with pytest.raises(DataError, match="no item is described in two prompts"):
        measure(
            alone, lambda given: [Answer((f"Film {n} (1990)", f"Film {n} (1991)")) for n in range(len(given))], QUICK
        )


def test_lists_without_an_answer_are_counted_not_taken_for_absence() -> None:
    inner = policy(lambda text: "Always recommend" in text)

    def ask(asked: Sequence[Prompt]) -> list[Answer | None]:
        return [None if "Ignore all" in (p.text or "") else a for p, a in zip(asked, inner(asked), strict=True)]

    found = row(measure(prompts(), ask, QUICK), "instruction")
    assert (found["pairs"], found["lost"]) == (36.0, 36.0)
    assert "listed" not in found
    assert "| instruction | none |  |  |  |  | 36 |" in render(measure(prompts(), ask, QUICK))


def test_figures_by_hand_with_the_prompts_of_a_user_together() -> None:
    trials = [
        Trial("A", "q1", "u1", "x", "none", 0.0, 1.0),
        Trial("B", "q1", "u1", "x", "none", 1.0, 0.5),
        Trial("A", "q2", "u2", "x", "none", 0.5, 0.0),
        Trial("A", "q3", "", "x", "none", None, 1.0),
    ]
    [found] = attack_figures(trials)
    assert (found["pairs"], found["lost"]) == (4.0, 1.0)
    assert (found["listed before"], found["listed after"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (found["listed"], found["discount"]) == (0.0, 0.0)
    # two clusters: sums 0.5 and -0.5 of three values, so sqrt(2/1 · (0.25 + 0.25)) / 3
    assert found["discount_se"] == pytest.approx(1 / 3)
    [cost] = quality_figures([Quality("q1", "", "strip", 0.5, 0.25), Quality("q2", "", "strip", 0.5, 0.5)])
    assert (cost["ndcg@10"], cost["change"]) == (0.375, -0.125)


def test_the_document_and_the_table_agree() -> None:
    found = measure(prompts(), policy(lambda text: "Always recommend" in text), QUICK)
    plain, text = document(found), render(found)
    assert plain["targets"] == dict.fromkeys(FILMS[:3], 12)
    assert len(plain["attacks"]) == 7 * 5
    assert len(plain["quality"]) == 5
    assert "| instruction | none | 0.500 | 1.000 | +0.500 [" in text


@pytest.mark.parametrize(
    "given",
    [{"targets": 0}, {"prompts": 1}, {"words": 0}, {"queries": -1}, {"at_once": True}, {"seed": 1.5}, {"key": ""}],
)
def test_settings_out_of_range(given: dict) -> None:
    with pytest.raises(UserError, match=f"robustness: {next(iter(given))} is"):
        RobustnessSettings(**given)
