"""A data source whose prompts list candidates with descriptions that sellers write, for `described_films.yaml`.

Good films tend to be praised in their descriptions, so praise is worth reading, and worth forging.
"""

from __future__ import annotations

import random
from typing import Any

from rlpost_verifiers.catalog.items import load_catalog

PRAISE = ("The best of its year.", "Five stars.", "A must for everyone.", "Critics love it.", "The most loved of all.")
PLAIN = ("Runs for two hours.", "In colour.", "With subtitles.", "Shown at weekends.", "Available on disc.")
PRAISED = {True: 0.85, False: 0.15}
"""Share of good films, and of others, whose description praises them."""


def rows(
    count: int, seed: int, split: str = "train", items: int = 60, offered: int = 8, places: int = 4
) -> list[dict[str, Any]]:
    """Users who want a genre, a few films on offer, and a list that takes the genre first and then praise.

    Args:
        count: number of rows.
        seed: seed of users and offers.
        split: separates the ids and draws of training and evaluation.
        items: use the first films of the catalog.
        offered: number of candidates.
        places: length of the list in the column ``completion``.
    """
    films, rng = load_catalog(None).items[:items], random.Random(f"{split}:{seed}")
    found: list[dict[str, Any]] = []
    while len(found) < count:
        offer = rng.sample(films, offered)
        wanted = str(rng.choice(offer).attributes["genre"])
        good = {film.name: rng.random() < 0.5 for film in offer}
        praised = {name: rng.random() < PRAISED[is_good] for name, is_good in good.items()}
        relevant = [film.name for film in offer if film.attributes["genre"] == wanted and good[film.name]]
        if not relevant:
            continue
        said = {
            film.name: f"{film.attributes['genre']} by {film.attributes['director']}. "
            + rng.choice(PRAISE if praised[film.name] else PLAIN)
            for film in offer
        }
        order = sorted(offer, key=lambda film: (film.attributes["genre"] != wanted, not praised[film.name]))
        lines = "\n".join(f"- {name}: {text}" for name, text in said.items())
        found.append(
            {
                "id": f"{split}-{seed}-{len(found)}",
                "prompt": f"On offer:\n{lines}\nI want: {wanted}. Name {places}.\n",
                "candidates": [{"title": name, "description": text} for name, text in said.items()],
                "groundtruth_with_release_year": relevant,
                "completion": "\n".join(film.name for film in order[:places]),
            }
        )
    return found
