r"""Generated conversations over a real catalog: users with tastes, their messages, and the items they want.

A user likes some genres, an era, two directors, and popular films to some degree:

    u(i) = a[genre_i] + b · exp(-((year_i - era) / width)²) + c · [director_i liked] + d · log(votes_i) + noise(user, i)

Seen films are drawn from softmax(u / τ), and the relevant films from the same distribution without the seen ones. The
user names the seen films and mentions some of the preferences, so the conversation determines the relevant films only
in part: a model can learn to predict them, but not perfectly.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from rlpost.errors import UserError
from rlpost_verifiers.catalog.ground_truth import RELEVANT_KEY, SEEN_KEY
from rlpost_verifiers.catalog.items import Item, load_catalog

_TEMPERATURE = 0.6
_NOISE = 0.7
_WIDTH = 8.0
_OPENINGS = (
    "I really liked {seen}. {wish} What should I watch next?",
    "Can you recommend something? I have seen {seen}. {wish}",
    "My favourites are {seen}. {wish} Any ideas?",
    "{wish} I enjoyed {seen}.",
)
_GENRES = {
    "Thriller/Suspense": "thriller", "Concert/Performance": "concert film", "Black Comedy": "black comedy",
    "Romantic Comedy": "romantic comedy",
}  # fmt: skip
_GENRE_WISHES = ("I am in the mood for a {genre}.", "Preferably a {genre}.", "Something like a {genre} would be nice.")
_ERA_WISHES = ("I like films from the {era}s.", "The {era}s are my time.")
_POPULAR_WISHES = ("Something well known, please.", "A big hit would be fine.")
_RARE_WISHES = ("Something less known, please.", "No blockbusters.")
_DIRECTOR_WISHES = ("I am a fan of {director}.", "{director} is great.")


@dataclass(frozen=True, slots=True)
class Taste:
    """A user's preferences: the parameters of the formula in the module's docstring."""

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
) -> list[dict[str, Any]]:
    """The data source ``catalog_conversations``.

    Args:
        count: number of conversations, each of a different user.
        seed: random seed of the users.
        split: ``train`` or ``eval``; the two share no user, whatever the seeds.
        catalog: path of the catalog, whose items need ``genre``, ``director`` and ``votes``; None: the films that ship.
        items: use only the first ``items`` items of the catalog; None: all.
        places: length of the teacher's list.
        teacher_noise: standard deviation of the teacher's error in utility, drawn for each user and film.
        teacher_bias: standard deviation of the teacher's error per film, the same for all users. Both errors are left
            for the reward to correct.
        candour: probability that a user mentions each preference (a genre, an era, popular or rare films, a director);
            None: 0.6, 0.5, 0.5 and 0.3.
        wanted: fewest and most relevant items of a user.

    Returns:
        Rows with ``id``, ``prompt``, ``completion`` (the teacher's list), ``seen_titles`` and
        ``groundtruth_with_release_year``, the columns of the published data.

    Raises:
        UserError: for a number out of range, or an unknown split.
    """
    if count < 0 or places < 1 or min(teacher_noise, teacher_bias) < 0:
        told = f"count {count}, places {places}, teacher_noise {teacher_noise}, teacher_bias {teacher_bias}"
        raise UserError(f"{told}: none may be negative")
    fewest, most = wanted
    if not 1 <= fewest <= most:
        raise UserError(f"wanted is {wanted!r}; give the fewest and the most items, at least 1")
    if candour is not None and not 0 <= candour <= 1:
        raise UserError(f"candour is {candour}; give a probability")
    if split not in ("train", "eval"):
        raise UserError(f"split is {split!r}; use 'train' or 'eval'")
    films = films_of(catalog, items)
    if places > len(films) // 2:
        raise UserError(f"places is {places} of {len(films)} items; ask for fewer, or use more items")
    errors = [teacher_bias * _normal(f"teacher:{film.id}") for film in films]
    makes = _Maker(films, places, teacher_noise, errors, candour, (fewest, most))
    return [makes.row(random.Random(f"{split}:{seed}:{number}")) for number in range(count)]


@cache
def films_of(catalog: str | None = None, items: int | None = None) -> tuple[Item, ...]:
    """The first ``items`` items of a catalog, cached; None: all."""
    return load_catalog(catalog).items[:items]


def taste(rng: random.Random, films: Sequence[Item]) -> Taste:
    """A random user's preferences."""
    genres = sorted({str(film.attributes.get("genre")) for film in films})
    liked = rng.sample(genres, min(len(genres), rng.randint(1, 2)))
    directors = [str(film.attributes["director"]) for film in films if film.attributes.get("director")]
    return Taste(
        genres={genre: rng.uniform(1.5, 2.5) if genre in liked else rng.uniform(-1.0, 0.3) for genre in genres},
        era=float(rng.randint(1975, 2010)),
        weight_of_era=rng.uniform(0.5, 2.0),
        directors=frozenset(rng.sample(sorted(set(directors)), min(2, len(set(directors))))),
        popularity=rng.choice((-0.4, 0.2, 0.6)),
        salt=str(rng.random()),
    )


def utility(one: Taste, film: Item) -> float:
    """u(i): how much a user likes a film."""
    votes = float(film.attributes.get("votes") or 1.0)
    near = math.exp(-((((film.year or one.era) - one.era) / _WIDTH) ** 2))
    return (
        one.genres.get(str(film.attributes.get("genre")), 0.0)
        + one.weight_of_era * near
        + 1.5 * (film.attributes.get("director") in one.directors)
        + one.popularity * (math.log(votes) - 11.0)
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

    def row(self, rng: random.Random) -> dict[str, Any]:
        films, one = self.films, taste(rng, self.films)
        worth = [utility(one, film) for film in films]
        order = _drawn(worth, rng)
        seen = order[: rng.randint(2, 4)]
        wanted = order[len(seen) : len(seen) + rng.randint(*self.wanted)]
        left = set(range(len(films))) - set(seen)
        guessed = sorted(left, key=lambda i: -(worth[i] + self.errors[i] + self.noise * rng.gauss(0.0, 1.0)))
        text = _said(one, [films[i] for i in seen], rng, self.candour)
        identity = hashlib.sha256(f"{text}{one.salt}".encode()).hexdigest()[:12]
        return {
            "id": f"conversation-{identity}",
            "prompt": text,
            "completion": "\n".join(films[i].name for i in guessed[: self.places]),
            SEEN_KEY: [films[i].name for i in seen],
            RELEVANT_KEY: [[films[i].title, str(films[i].year)] for i in wanted],
        }


def _drawn(worth: Sequence[float], rng: random.Random) -> list[int]:
    """All items in the order in which they are drawn from softmax(u / τ) without replacement (Gumbel's trick)."""
    keys = [value / _TEMPERATURE - math.log(-math.log(rng.uniform(1e-12, 1.0 - 1e-12))) for value in worth]
    return sorted(range(len(worth)), key=lambda i: -keys[i])


def _said(one: Taste, seen: Sequence[Item], rng: random.Random, candour: float | None) -> str:
    def tells(usually: float) -> bool:
        return rng.random() < (usually if candour is None else candour)

    best = max(one.genres, key=lambda genre: one.genres[genre])
    wishes = [rng.choice(_GENRE_WISHES).format(genre=_GENRES.get(best, best.lower()))] if tells(0.6) else []
    if one.weight_of_era > 1.0 and tells(0.5):
        wishes.append(rng.choice(_ERA_WISHES).format(era=int(one.era) // 10 * 10))
    if abs(one.popularity) > 0.3 and tells(0.5):
        wishes.append(rng.choice(_POPULAR_WISHES if one.popularity > 0 else _RARE_WISHES))
    if tells(0.3):
        wishes.append(rng.choice(_DIRECTOR_WISHES).format(director=sorted(one.directors)[0]))
    names = [film.name for film in seen]
    told = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return " ".join(rng.choice(_OPENINGS).format(seen=told, wish=" ".join(wishes)).split())


def _normal(key: str) -> float:
    """A standard normal number determined by a key."""
    return random.Random(key).gauss(0.0, 1.0)
