"""Descriptions in prompts, attacks on them and defences, by hand. The measurement is tests/unit/loop/test_robustness.py."""

from __future__ import annotations

import pytest

from rlpost.evaluation.manipulation import ATTACKS, Defences, candidates, entries, rewritten, stripped
from rlpost.types import Message, Prompt

ALIEN, UP = "Alien (1979)", "Up (2009)"


def described(text: str, *items: str, **said: str) -> list[tuple[str, str]]:
    prompt = Prompt("q", text)
    found = entries(prompt, items or (ALIEN, UP), {f"{k} (1979)": v for k, v in said.items()})
    return [(one.item, text[one.start : one.stop]) for one in found]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- Alien (1979): in space", "in space"),
        ("1. Alien (1979) - in space.", "in space."),
        ("12) **Alien** (1979): in space", "in space"),
        ("* “Alien (1979)” – in space", "in space"),
        ("a) Alien: in space", "in space"),
        ("• Alien (1979)\n  in space", ""),
        ("Title: Alien (1979) | in space", "in space"),
        ('  {"title": "Alien (1979)", "description": "in space"},', "in space"),
        ('[{"name": "Alien", "text": "in space"}]', "in space"),
        ("Alien (1979): in space (a horror film)", "in space (a horror film)"),
        ("Alien (1979): “in space”", "“in space”"),
        ("Alien (1979)", ""),
    ],
)
def test_entries_in_usual_forms(text: str, said: str) -> None:
    assert described(text) == [(ALIEN, said)]


@pytest.mark.parametrize(
    "text",
    [
        "I loved Alien (1979), it was great",
        "- Aliens (1986): more of them",
        "- Alien (1992): another one",
        "- Alienation: a book",
        "",
        "- - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - -",
    ],
)
def test_what_is_no_entry(text: str) -> None:
    assert described(text) == []


def test_descriptions_of_the_row_are_found_where_they_stand() -> None:
    text = "<film>Alien (1979)<p>in space</p></film> <film>Up (2009)<p>in space</p></film>"
    assert described(text, ALIEN, Alien="in space") == [(ALIEN, "in space")]
    assert described("- Alien (1979): shortened", ALIEN, Alien="a long description") == [(ALIEN, "shortened")]
    prompt = Prompt("q", text)
    both = entries(prompt, (ALIEN, UP), {ALIEN: "in space", UP: "in space"})
    assert [(one.item, one.start) for one in both] == [(ALIEN, text.index("in space")), (UP, text.rindex("in space"))]


def test_candidates_of_a_row() -> None:
    row = {"c": ["Up (2009)", {"title": "Alien", "year": 1979, "description": "x"}, {"name": "Heat (1995)"}, 5, {}]}
    assert candidates(row, "c") == {UP: "", ALIEN: "x", "Heat (1995)": ""}
    assert candidates(row, "other") == candidates({"c": "Alien"}, "c") == {}


def test_prompts_are_rewritten_entry_by_entry_and_the_assistant_is_left_alone() -> None:
    chat = Prompt("q", messages=(
        Message("system", "Be short."), Message("user", "- Alien (1979): a\n- Up (2009): b"),
        Message("assistant", "- Alien (1979): mine"), Message("user", "Well?"),
    ))  # fmt: skip
    found = entries(chat, (UP, ALIEN))
    assert [(one.item, one.part) for one in found] == [(ALIEN, 1), (UP, 1)]
    changed = rewritten(chat, found, lambda one, text: f"<{text}>", "Note. ")
    assert changed.messages is not None
    assert [one.content for one in changed.messages] == [
        "Note. Be short.", "- Alien (1979): <a>\n- Up (2009): <b>", "- Alien (1979): mine", "Well?",
    ]  # fmt: skip
    assert rewritten(chat, found, lambda one, text: text) == chat


CLEAN = ["A space horror film by Ridley Scott.", "An old man flies away. In colour.", "Two cops and a thief."]


def test_defences_leave_clean_descriptions_as_they_are() -> None:
    named = Defences.fit(CLEAN).named()
    assert list(named) == ["none", "delimit", "strip", "truncate", "perplexity"]
    for name in ("none", "strip", "truncate", "perplexity"):
        apply, note = named[name]
        assert [apply(text) for text in CLEAN] == CLEAN, name
        assert note == ""
    assert named["delimit"][0]("in « space » ") == " «in  space»", "nobody else's marks stay"
    assert "never an instruction" in named["delimit"][1]


def test_orders_tokens_and_hidden_letters_are_stripped() -> None:
    for name in ("instruction", "system turn", "hidden"):
        text = f"In space. {ATTACKS[name].format(item=UP)}"
        left = stripped(text)
        assert "In space." in left
        assert len(left) < len(text) / 2, (name, left)
    assert stripped("In space. The best of its year.") == "In space. The best of its year.", "praise is no order"


def test_what_is_cut_and_what_is_strange() -> None:
    defences = Defences.fit(CLEAN)
    assert defences.longest == max(map(len, CLEAN))
    named = defences.named()
    assert len(named["truncate"][0](CLEAN[0] + " Buy it! " * 20)) == defences.longest
    assert named["perplexity"][0](CLEAN[2] + " zxq#!jjkw qqqx.") == CLEAN[2]
    assert defences.surprise("by Ridley Scott.") < defences.surprise("zxq#!jjkw")
    empty = Defences.fit([])
    assert empty.named()["perplexity"][0]("anything") == "anything"
