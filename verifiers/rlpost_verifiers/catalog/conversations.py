r"""Generated conversations over any catalog: users with tastes, their messages, and the items they want.

A user likes some genres, an era, two directors, and popular films to some degree:

    u(i) = a[genre_i] + b · exp(-((year_i - era) / width)²) + c · [director_i liked] + d · log(votes_i) + noise(user, i)

In other catalogs other columns play these parts, such as the category, price, brand and number of ratings of goods
(`rlpost_verifiers.catalog.domains`); the names here are those of films.

Seen items are drawn from softmax(u / τ), and the relevant items from the same distribution without the seen ones. The
user names the seen items and mentions some of the preferences, so the conversation determines the relevant items only
in part: a model can learn to predict them, but not perfectly.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rlpost.errors import UserError
from rlpost_verifiers.catalog.domain_settings import domain_of
from rlpost_verifiers.catalog.domains import FILMS, Domain
from rlpost_verifiers.catalog.ground_truth import RELEVANT_KEY, SEEN_KEY
from rlpost_verifiers.catalog.items import Item, load_catalog

_TEMPERATURE = 0.6
_NOISE = 0.7
_SEEN = (2, 4)
"""Fewest and most items that a user has."""


@dataclass(frozen=True, slots=True)
class Taste:
    """A user's preferences: the parameters of the formula in the module's docstring.

    Attributes:
        genres: liking of each category.
        era: the amount that the user wants: a year, a price.
        weight_of_era: how much it counts.
        directors: makers that the user likes.
        popularity: weight of the logarithm of votes.
        salt: distinguishes the user's noise.
    """

    genres: dict[str, float]
    era: float
    weight_of_era: float
    directors: frozenset[str]
    popularity: float
    salt: str


def rows(
    count: int,
    seed: int,
    split: Literal["train", "eval"] = "train",
    catalog: str | None = None,
    items: int | None = 300,
    places: int = 10,
    teacher_noise: float = 1.0,
    teacher_bias: float = 0.0,
    candour: float | None = None,
    wanted: tuple[int, int] = (1, 3),
    domain: str | Mapping[str, Any] | Domain | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The data source ``catalog_conversations``.

    Args:
        count: number of conversations, each of a different user.
        seed: random seed of the users.
        split: ``train`` or ``eval``; the two share no user, whatever the seeds.
        catalog: path of the catalog, or the name of one that ships, ``movies`` or ``goods``; None: the films.
        items: use only the first ``items`` items of the catalog; None: all.
        places: length of the teacher's list.
        teacher_noise: standard deviation of the teacher's error in utility, drawn for each user and item.
        teacher_bias: standard deviation of the teacher's error per item, the same for all users. Both errors are left
            for the reward to correct; without them the teacher's list is the user's true taste.
        candour: probability that a user mentions each preference (a category, an amount, popular or rare items, a
            maker); None: 0.6, 0.5, 0.5 and 0.3.
        wanted: fewest and most relevant items of a user.
        domain: which columns play which part in a user's taste, and how users speak: ``films``, ``goods`` or a mapping
            (`rlpost_verifiers.catalog.domain_settings`); None: that of the catalog that ships, ``films`` for others.
        columns: names of the catalog's columns; see `load_catalog`.

    Returns:
        Rows with ``id``, ``prompt``, ``completion`` (the teacher's list), ``seen_titles`` and
        ``groundtruth_with_release_year``, the columns of the published data. A relevant item is ``[title, year]``,
        without a year ``[title]``.

    Raises:
        UserError: for a number out of range, an unknown split, or a domain whose columns the catalog lacks.
    """
    if count < 0 or places < 1 or min(teacher_noise, teacher_bias) < 0:
        told = f"count {count}, places {places}, teacher_noise {teacher_noise}, teacher_bias {teacher_bias}"
        raise UserError(f"{told}: none may be negative")
    pair = isinstance(wanted, (list, tuple)) and len(wanted) == 2 and all(isinstance(one, int) for one in wanted)
    if not pair or not 1 <= wanted[0] <= wanted[1]:
        raise UserError(f"wanted is {wanted!r}; give the fewest and the most items, at least 1")
    if candour is not None and not 0 <= candour <= 1:
        raise UserError(f"candour is {candour}; give a probability")
    if split not in ("train", "eval"):
        raise UserError(f"split is {split!r}; use 'train' or 'eval'")
    films = films_of(catalog, items, tuple(sorted((columns or {}).items())))
    if places > len(films) // 2:
        raise UserError(f"places is {places} of {len(films)} items; ask for fewer, or use more items")
    if _SEEN[1] + wanted[1] > len(films):
        told = f"users have up to {_SEEN[1]} items and want up to {wanted[1]}"
        raise UserError(f"items: {len(films)}, but {told}; use more items, or lower wanted")
    about = domain_of(domain, catalog).fitted(films, catalog or "movies")
    errors = [teacher_bias * _normal(f"teacher:{film.id}") for film in films]
    makes = _Maker(films, places, teacher_noise, errors, candour, (wanted[0], wanted[1]), about)
    return [makes.row(random.Random(f"{split}:{seed}:{number}")) for number in range(count)]


def films_of(
    catalog: str | None = None, items: int | None = None, columns: tuple[tuple[str, str], ...] = ()
) -> tuple[Item, ...]:
    """The first ``items`` items of a catalog, read once as long as the file does not change; None: all."""
    try:
        file = None if catalog is None else Path(catalog).expanduser().stat()
    except (OSError, RuntimeError, ValueError):  # one that ships, or one that `load_catalog` refuses
        file = None
    return _read(catalog, items, columns, None if file is None else (file.st_mtime_ns, file.st_size))


@cache
def _read(
    catalog: str | None, items: int | None, columns: tuple[tuple[str, str], ...], changed: tuple[int, int] | None
) -> tuple[Item, ...]:
    """``changed``: when and how large the file was, so that another one is read again."""
    return tuple(load_catalog(catalog, dict(columns)).items[:items])


def taste(rng: random.Random, films: Sequence[Item], domain: Domain = FILMS) -> Taste:
    """A random user's preferences."""
    genres = sorted({genre for film in films if (genre := domain.category_of(film))})
    liked = rng.sample(genres, min(len(genres), rng.randint(1, 2)))
    directors = sorted({director for film in films if (director := domain.maker_of(film))})
    return Taste(
        genres={genre: rng.uniform(1.5, 2.5) if genre in liked else rng.uniform(-1.0, 0.3) for genre in genres},
        era=_era(rng, films, domain),
        weight_of_era=rng.uniform(0.5, 2.0) * (domain.amount is not None),
        directors=frozenset(rng.sample(directors, min(2, len(directors)))),
        popularity=rng.choice((-0.4, 0.2, 0.6)) * (domain.votes is not None),
        salt=str(rng.random()),
    )


def _era(rng: random.Random, films: Sequence[Item], domain: Domain) -> float:
    """The amount that a user wants, in its unit."""
    if domain.span is not None:
        return float(rng.randint(*domain.span))
    known = [amount for film in films if (amount := domain.amount_of(film)) is not None]
    if not known:
        return 1.0
    drawn = rng.choice(known)
    return math.exp(drawn) if domain.log else drawn


def utility(one: Taste, film: Item, domain: Domain = FILMS) -> float:
    """u(i): how much a user likes an item. ``domain``: with its numbers, see `Domain.fitted`."""
    assert domain.width is not None
    assert domain.middle is not None
    amount, wanted = domain.amount_of(film), domain.scaled(one.era)
    far = 0.0 if amount is None or wanted is None else (amount - wanted) / domain.width
    return (
        one.genres.get(domain.category_of(film), 0.0)
        + one.weight_of_era * math.exp(-(far**2))
        + 1.5 * (domain.maker_of(film) in one.directors)
        + one.popularity * (domain.votes_of(film) - domain.middle)
        + _NOISE * _normal(f"{one.salt}:{film.id}")
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes rows; holds what all rows of a call share."""

    films: Sequence[Item]
    places: int
    noise: float
    errors: Sequence[float]
    candour: float | None
    wanted: tuple[int, int]
    domain: Domain = FILMS

    def row(self, rng: random.Random) -> dict[str, Any]:
        films, one = self.films, taste(rng, self.films, self.domain)
        worth = [utility(one, film, self.domain) for film in films]
        order = _drawn(worth, rng)
        seen = order[: rng.randint(*_SEEN)]
        wanted = order[len(seen) : len(seen) + rng.randint(*self.wanted)]
        left = set(range(len(films))) - set(seen)
        guessed = sorted(left, key=lambda i: -(worth[i] + self.errors[i] + self.noise * rng.gauss(0.0, 1.0)))
        text = _said(one, [films[i] for i in seen], rng, self.candour, self.domain)
        identity = hashlib.sha256(f"{text}{one.salt}".encode()).hexdigest()[:12]
        return {
            "id": f"conversation-{identity}",
            "prompt": text,
            "completion": "\n".join(films[i].name for i in guessed[: self.places]),
            SEEN_KEY: [films[i].name for i in seen],
            RELEVANT_KEY: [_named(films[i]) for i in wanted],
        }


def _named(film: Item) -> list[str]:
    return [film.title] if film.year is None else [film.title, str(film.year)]


def _drawn(worth: Sequence[float], rng: random.Random) -> list[int]:
    """All items in the order in which they are drawn from softmax(u / τ) without replacement (Gumbel's trick)."""
    keys = [value / _TEMPERATURE - math.log(-math.log(rng.uniform(1e-12, 1.0 - 1e-12))) for value in worth]
    return sorted(range(len(worth)), key=lambda i: -keys[i])


def _said(one: Taste, seen: Sequence[Item], rng: random.Random, candour: float | None, domain: Domain) -> str:
    def tells(usually: float) -> bool:
        return rng.random() < (usually if candour is None else candour)

    words, wishes = domain.wording, list[str]()
    if one.genres and tells(0.6):
        best = max(one.genres, key=lambda genre: one.genres[genre])
        wishes.append(rng.choice(words.category).format(category=words.spoken.get(best, best.lower())))
    if one.weight_of_era > 1.0 and tells(0.5):
        least = int(one.era) // domain.step * domain.step
        wishes.append(rng.choice(words.amount).format(amount=least, above=least + domain.step))
    if abs(one.popularity) > 0.3 and tells(0.5):
        wishes.append(rng.choice(words.popular if one.popularity > 0 else words.rare))
    if one.directors and tells(0.3):
        wishes.append(rng.choice(words.maker).format(maker=sorted(one.directors)[0]))
    names = [film.name for film in seen]
    told = f"{words.between.join(names[:-1])}{words.last}{names[-1]}" if len(names) > 1 else names[0]
    return " ".join(rng.choice(words.openings).format(seen=told, wish=" ".join(wishes)).split())


def _normal(key: str) -> float:
    """A standard normal number determined by a key."""
    return random.Random(key).gauss(0.0, 1.0)
