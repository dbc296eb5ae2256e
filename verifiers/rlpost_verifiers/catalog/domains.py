"""What users of a catalog care about and how they speak: films, goods, or a catalog of one's own.

A domain says which columns of a catalog play the four parts in a user's taste (`rlpost_verifiers.catalog.conversations`
has the formula), so that users can be generated for any catalog, with years or without.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlpost.errors import UserError
from rlpost_verifiers.catalog.items import Item

YEAR = "year"
"""The part ``amount`` by this name is the item's year, whatever its column is called."""
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:[eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}")


@dataclass(frozen=True, slots=True)
class Wording:
    """Sentences of users; of each kind one is drawn.

    Attributes:
        openings: whole messages, with ``{seen}`` and ``{wish}``.
        category: wish for a ``{category}``.
        amount: wish for an amount from ``{amount}`` to ``{above}``.
        popular: wish for what many know.
        rare: wish for what few know.
        maker: praise of a ``{maker}``.
        spoken: how a category is said where it is not its name in small letters.
        between: stands between seen items.
        last: stands before the last of them.
    """

    openings: tuple[str, ...] = (
        "I really liked {seen}. {wish} What should I get next?",
        "Can you recommend something? I already have {seen}. {wish}",
        "My favourites are {seen}. {wish} Any ideas?",
        "{wish} I was happy with {seen}.",
    )
    category: tuple[str, ...] = (
        "I need something for {category}.",
        "Preferably for {category}.",
        "Something for {category} would be nice.",
    )
    amount: tuple[str, ...] = (
        "I can spend {amount} to {above} dollars.",
        "It should cost {amount} to {above} dollars.",
    )
    popular: tuple[str, ...] = ("Something that many people bought, please.", "A bestseller would be fine.")
    rare: tuple[str, ...] = ("Nothing that everybody has, please.", "No bestsellers.")
    maker: tuple[str, ...] = ("I trust {maker}.", "{maker} is a good brand.")
    spoken: Mapping[str, str] = field(default_factory=dict[str, str])
    between: str = "; "
    last: str = "; and "


@dataclass(frozen=True, slots=True)
class Domain:
    """The parts that columns play, and their numbers. A part without a column (None) plays none.

    Attributes:
        category: column of what an item is for or belongs to; of several values in a cell the first counts.
        maker: column of who made it.
        amount: column with a number of which users want a certain size, or ``year``.
        votes: column with the number of people who chose or rated it.
        log: whether amounts are compared by their logarithm, as prices are.
        span: least and largest amount that users want, whole numbers; None: each wants the amount of a random item.
        width: distance at which an amount counts 1/e as much, in its unit or, with ``log``, in natural logarithms;
            None: half the standard deviation of the catalog's.
        middle: logarithm of the votes to which no user is inclined; None: the catalog's mean.
        step: users name amounts in steps of this size.
        wording: what they say.
    """

    category: str | None = "category"
    maker: str | None = "brand"
    amount: str | None = "price"
    votes: str | None = "ratings"
    log: bool = True
    span: tuple[int, int] | None = None
    width: float | None = None
    middle: float | None = None
    step: int = 20
    wording: Wording = field(default_factory=Wording)

    def category_of(self, item: Item) -> str:
        """The item's category; empty: none."""
        return _text(item, self.category)

    def maker_of(self, item: Item) -> str:
        """The item's maker; empty: none."""
        return _text(item, self.maker)

    def amount_of(self, item: Item) -> float | None:
        """The item's amount on its scale; None: unknown."""
        if self.amount is None:
            return None
        value = item.year if self.amount == YEAR else number(item.attributes.get(self.amount))
        return None if value is None else self.scaled(float(value))

    def scaled(self, amount: float) -> float | None:
        """An amount on the scale on which amounts are compared; None for none above 0 on a logarithmic one."""
        if not self.log:
            return amount
        return math.log(amount) if amount > 0 else None

    def votes_of(self, item: Item) -> float:
        """Logarithm of the item's votes; 0 where they are unknown."""
        found = number(item.attributes.get(self.votes)) if self.votes is not None else None
        return math.log(max(found or 1.0, 1.0))

    def fitted(self, items: Sequence[Item], where: str) -> Domain:
        """The domain with the numbers that a catalog determines.

        Raises:
            UserError: if no item of the catalog (``where``) has a part, or all parts are None.
        """
        parts = {name: getattr(self, name) for name in ("category", "maker", "amount", "votes")}
        if not any(parts.values()):
            raise UserError(f"domain of {where}: no part has a column; name one for category, maker, amount or votes")
        for name, column in parts.items():
            if column is not None and not any(self._known(name, item) for item in items):
                there = ", ".join(sorted({key for item in items for key in item.attributes} | {YEAR}))
                raise UserError(
                    f"domain of {where}: no item has a usable {column!r} for {name}; set domain.{name} to another "
                    f"column or null (there are {there})"
                )
        amounts = [amount for item in items if (amount := self.amount_of(item)) is not None]
        spread = statistics.pstdev(amounts) / 2.0 if self.width is None and amounts else self.width
        level = statistics.fmean(map(self.votes_of, items)) if self.middle is None else self.middle
        return replace(self, width=spread or 1.0, middle=level)

    def _known(self, part: str, item: Item) -> bool:
        if part == "votes":
            return number(item.attributes.get(str(self.votes))) is not None
        found = {"category": self.category_of, "maker": self.maker_of, "amount": self.amount_of}[part](item)
        return found not in (None, "")


FILMS = Domain(
    category="genre",
    maker="director",
    amount=YEAR,
    votes="votes",
    log=False,
    span=(1975, 2010),
    width=8.0,
    middle=11.0,
    step=10,
    wording=Wording(
        openings=(
            "I really liked {seen}. {wish} What should I watch next?",
            "Can you recommend something? I have seen {seen}. {wish}",
            "My favourites are {seen}. {wish} Any ideas?",
            "{wish} I enjoyed {seen}.",
        ),
        category=(
            "I am in the mood for a {category}.",
            "Preferably a {category}.",
            "Something like a {category} would be nice.",
        ),
        amount=("I like films from the {amount}s.", "The {amount}s are my time."),
        popular=("Something well known, please.", "A big hit would be fine."),
        rare=("Something less known, please.", "No blockbusters."),
        maker=("I am a fan of {maker}.", "{maker} is great."),
        spoken={
            "Thriller/Suspense": "thriller",
            "Concert/Performance": "concert film",
            "Black Comedy": "black comedy",
            "Romantic Comedy": "romantic comedy",
        },
        between=", ",
        last=" and ",
    ),
)
GOODS = Domain()
DOMAINS = {"films": FILMS, "goods": GOODS}


def number(value: Any) -> float | None:
    """A finite number in a cell, also written as ``$1,299.00`` or ``12,50 €``; None for anything else.

    >>> number("$1,299.00"), number("12,50 €"), number("free"), number(True)
    (1299.0, 12.5, None, None)
    """
    if isinstance(value, str):
        found = _NUMBER.search(value)
        text = found[0].rstrip(".,") if found is not None else ""
        text = text.replace(",", "." if _DECIMAL_COMMA.fullmatch(text) else "")
        try:
            value = float(text)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _text(item: Item, column: str | None) -> str:
    """The first value of a cell as text; empty: none."""
    cell = item.attributes.get(column) if column is not None else None
    parts = cell if isinstance(cell, (list, tuple)) else str(cell).split("|") if cell is not None else []
    return next((text for part in parts if part is not None and (text := str(part).strip())), "")
