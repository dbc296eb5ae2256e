"""Units of measure and of money: what a word after a number means, as a factor and powers of base units.

A unit that this table knows on both sides is compared: ``50 mm`` is 5 cm, ``5 m`` is not. Any other noun (``6 apples``)
is read and not compared. Only a noun may follow a number: ``6 or more``, ``7 thousand`` and ``5 squared`` are no units.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Unit:
    """What follows a number: ``factor`` in base units and the powers of these, or a ``noun`` that is not compared.

    >>> unit_of("km/h").powers, unit_of("apples").powers
    ((('length', 1), ('time', -1)), None)
    """

    factor: Fraction = Fraction(1)
    powers: tuple[tuple[str, int], ...] | None = None
    noun: str = ""


NO_UNIT = Unit()
_TABLE = """
length 1 m meter metre; 1/1000 mm millimeter millimetre; 1/100 cm centimeter centimetre; 1/10 dm decimeter decimetre;
length 1000 km kilometer kilometre; 127/5000 in inch inches; 381/1250 ft foot feet; 1143/1250 yd yard;
length 201168/125 mi mile; 1/1000000 micrometer micron; 1/1000000000 nm nanometer
time 1 s sec second; 60 min minute; 3600 h hr hour; 86400 day; 604800 wk week; 1/1000 ms millisecond
month 1 month; 12 yr year; 120 decade; 1200 century centuries
mass 1 g gram; 1000 kg kilogram kilo; 1/1000 mg milligram; 1000000 tonne; 28349523125/1000000000 oz ounce
mass 45359237/100000 lb lbs
volume 1 L l liter litre; 1/1000 mL ml milliliter millilitre; 1/100 cL cl
gallon 1 gal gallon; 1/4 qt quart; 1/8 pt pint; 1/16 cup
dollar 1 dollar USD buck; 1/100 cent penny pennies ¢
euro 1 euro EUR €
sterling 1 £ GBP
yen 1 yen ¥ JPY
rupee 1 rupee ₹ Rs INR
angle 1 DEGREE degree deg °
radian 1 rad radian
celsius 1 C Celsius degC
fahrenheit 1 F Fahrenheit degF
kelvin 1 K Kelvin
newton 1 N newton Newton; 1000 kN
joule 1 J joule Joule; 1000 kJ
watt 1 W watt Watt; 1000 kW
volt 1 V volt Volt
ampere 1 A amp ampere
hertz 1 Hz hertz; 1000 kHz; 1000000 MHz
pascal 1 Pa pascal; 1000 kPa
mole 1 mol mole
electronvolt 1 eV
square 1 unit
"""
_PREFIXES = {"k": Fraction(1000), "M": Fraction(10**6), "G": Fraction(10**9), "m": Fraction(1, 1000),
             "u": Fraction(1, 10**6), "n": Fraction(1, 10**9)}  # fmt: skip
_SHORT = {"mph": "mile/hour", "kph": "km/h", "kmh": "km/h", "fps": "foot/second", "sqft": "foot^2", "psi": "lb/in^2"}
_ATTACHED = re.compile(r"[A-Za-z]{2,}|[€£¥₹¢°]")
_WORD = re.compile(r"([A-Za-z€£¥₹¢°'-]+)(?:\^(?:\{(-?\d)\}|(-?\d)))?")
_TOKEN = re.compile(
    r"\s*(?:(/|\bper\b)|(\\cdot|\*)|([A-Za-z€£¥₹¢°][A-Za-z'-]*\.?(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?))"
)
_FUNCTION_WORDS = """or and nor to not but plus minus times over divided by if when unless mod modulo remainder
through than negative at least most point tens crore lakh gross permille mille half halves third thirds quarter
quarters fourth fourths fifth fifths sixth sixths seventh eighth eighths sevenths ninth ninths eleventh elevenths
twelfth twelfths thousandth thousandths tenth tenths hundredth hundredths squared cubed factorial power root hundred
hundreds thousand thousands million millions billion billions trillion trillions dozen dozens zero one two three four
five six seven eight nine ten eleven twelve is are was were equals equal choose pick either maybe perhaps possibly
about with without except unknown wrong incorrect true false no yes because since so then base radical sqrt log exp
sin cos tan pi alpha beta gamma delta theta lambda sigma omega infinity x y z"""
_NOT_NOUNS = frozenset(_FUNCTION_WORDS.split())
_SMALL = frozenset({"of", "in", "on", "a", "an", "the", "for"})
_PREFIXED = ("A", "V", "W", "N", "J", "Hz", "Pa", "mol", "L", "eV")
_SHORTEST_NOUN = 3
_LONGEST = 6
"""Most words of a noun phrase."""


def _entries() -> dict[str, tuple[Fraction, str]]:
    found: dict[str, tuple[Fraction, str]] = {}
    for line in _TABLE.strip().splitlines():
        dimension, rest = line.split(" ", 1)
        for entry in filter(None, (part.strip() for part in rest.split(";"))):
            factor, *names = entry.split()
            for name in names:
                found[name] = (Fraction(factor), dimension)
                if len(name) > 2 and name.isalpha():
                    found.setdefault(f"{name}s", found[name])
    for unit in _PREFIXED:
        for prefix, factor in _PREFIXES.items():
            found.setdefault(prefix + unit, (found[unit][0] * factor, found[unit][1]))
    return found


_UNITS = _entries()


def is_function_word(word: str) -> bool:
    """Whether a word changes what the number beside it means: ``or``, ``thousand``, ``squared``; a noun does not."""
    return word.lower().strip(",") in _NOT_NOUNS


@lru_cache(maxsize=4096)
def unit_of(text: str, apart: bool = True) -> Unit | None:
    """The unit that ``text`` names, None if it is not one.

    Args:
        text: what follows a number, in the spelling of `notation`.
        apart: whether a blank stands between it and the number: ``5 m`` are metres, ``5m`` may be a product.
    """
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\s+", " ", text.strip(" .,")).replace("DOLLAR", "dollar")
    if not text:
        return NO_UNIT
    text = _named(text)
    if not apart and not _ATTACHED.match(text) and not text.startswith("DEGREE"):
        return None
    words: list[tuple[str, int, bool]] = []
    at, below, pending = 0, False, 0
    while found := _TOKEN.match(text, at):
        at = found.end()
        if found[1]:
            below, pending = True, 0
        elif found[3]:
            name = _WORD.match(found[3].replace(" ", ""))
            if name is None:
                return None
            word = name[1].strip("'-")
            if word in ("square", "sq", "cubic", "cu"):
                pending = 2 if word.startswith("s") else 3
                continue
            power = int(name[2] or name[3] or pending or 1)
            pending = 0
            words.append((word, -power if below else power, below))
    if at < len(text.rstrip()) or not words or len(words) > _LONGEST:
        return None
    if any(is_function_word(word) for word, _, _ in words):
        return None
    return _measured(words, apart)


def _measured(words: list[tuple[str, int, bool]], apart: bool) -> Unit | None:
    factor, powers = Fraction(1), dict[str, int]()
    for word, power, _ in words:
        known = _UNITS.get(word) or _UNITS.get(word.lower() if len(word) > 2 else word)
        if known is None:
            # a lone letter that is no unit is a variable; so is what touches its number
            names = [word.lower() for word, _, _ in words if word.lower() not in _SMALL]
            if not apart or not names or any(len(word) < _SHORTEST_NOUN and word not in _UNITS for word in names):
                return None
            return Unit(noun=" ".join(word.removesuffix("s") for word in names))
        factor *= known[0] ** power
        powers[known[1]] = powers.get(known[1], 0) + power
    return Unit(factor, tuple(sorted((name, power) for name, power in powers.items() if power)))


def _named(text: str) -> str:
    text = re.sub(r"DEGREE ?(C|F)\b", lambda found: f"deg{found[1]}", text)
    text = re.sub(r"\bdegrees? (Celsius|Fahrenheit|C|F)\b", lambda found: f"deg{found[1][0].upper()}", text)
    text = re.sub(r"\b(?:US|U\.S\.) dollars?\b", "dollar", text)
    for short, long in _SHORT.items():
        text = re.sub(rf"\b{short}\b", long, text)
    return text
