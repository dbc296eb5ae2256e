"""Titles read in a wrong encoding are repaired, and no title that somebody may have written is changed."""

from __future__ import annotations

import pytest

from rlpost_verifiers.catalog.mojibake import repaired

WRITTEN = [
    *("WALL·E", "Mission: Impossible – Fallout", "’71", "Spider‑Man", "Alien³", "8½", "Amélie", "¡Three Amigos!"),
    *("CAFÉ™", "NESTLÉ®", "IRMÃ…", "MAÇÃ", "SÃO…", "“AMANHÃ”", "ESPAÑA“", "CÔTÉ D’AZUR", "PIÑA™", "Café™", "Señor®"),
    *("na nÓg", "Tír na nÓg", "Raidió na hÉireann", "MiÁfrica", "McÉwan", "Çà et là", "À nos amours", "L'Été"),
    *("ТРЁХ МУШКЕТЁРОВ", "РЁВ", "Ирония судьбы, или С лёгким паром!", "東京物語", "हिन्दी", "はは", "Δεκαλόγος"),
    *("olé”…", "Spaß…", "4×½", "4288×…", "√2", "2√π", "Ægir", "Ødegård", "Über™", "DJ Ötzi", "HÄAGEN-DAZS®", "ÀÉ"),
    *("Birds of Prey — Harley", "Star Wars – A New Hope", "Beyoncé: À…", "Naïve…”", "Łódź", "Ñ…", "YOUÈ", "Motörhead®"),
]
MEANT = [
    *("Amélie", "Les Misérables", "Schindler’s List", "Star Wars – A New Hope", "“Crocodile” Dundee", "Été"),
    *("À bout de souffle", "L'Âge d'or", "El niño", "Über", "Wałęsa", "Çok güzel", "はじめ", "東京物語", "Δεκαλόγος"),
    *("Иван Васильевич", "WALL·E", "¿Qué?", "Pokémon™", "CAFÉ", "Señorita…", "Kırmızı", "naïve", "Emoji 😀", "Bjørn"),
]


def misread(text: str, encoding: str) -> str:
    """The text's UTF-8 bytes in another encoding; bytes that it lacks as control characters."""
    found = [bytes([byte]).decode(encoding, "replace") for byte in text.encode()]
    return "".join(chr(byte) if c == "\ufffd" else c for byte, c in zip(text.encode(), found, strict=True))


@pytest.mark.parametrize("title", WRITTEN)
def test_what_somebody_may_have_written_stays(title: str) -> None:
    assert repaired(title) == title


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac_roman", "cp437"])
def test_utf8_read_in_another_encoding_is_repaired(encoding: str) -> None:
    found = {title: repaired(misread(title, encoding)) for title in MEANT}
    assert found == {title: title for title in MEANT}


@pytest.mark.parametrize("title", ["Amélie", "El niño", "Иван Васильевич меняет профессию", "Schindler’s List"])
def test_utf8_read_as_cyrillic_is_repaired(title: str) -> None:
    assert repaired(misread(title, "cp1251")) == title


@pytest.mark.parametrize("title", ["Amélie", "Schindler’s List", "Les Misérables – 2"])
def test_what_was_misread_twice_is_repaired_twice(title: str) -> None:
    assert repaired(misread(misread(title, "cp1252"), "cp1252")) == title


def test_a_repair_leaves_the_rest_of_the_title() -> None:
    assert repaired("Amélie – AmÃ©lie") == "Amélie – Amélie"
    assert repaired("LÈon") == "Léon"
    assert repaired("Le Fabuleux destin d'AmÈlie Poulain") == "Le Fabuleux destin d'Amélie Poulain"
