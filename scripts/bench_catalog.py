"""Lookups per second in a catalog of many items, by level of matching, and the cost of its index.

Titles are generated: a million of two to five words out of twenty thousand, with years. Lines are written as a model
writes them, and parsed. The baseline looks the same lines up in a plain dictionary of (title, year), as the published
code does. Prints one JSON document; seconds are CPU time.

    scripts/bench_catalog.py --items 1000000 --lines 100000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import time
from collections.abc import Callable

from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import Item
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.names import canonical

SLIPS = 0.05


def items(count: int, rng: random.Random) -> list[Item]:
    """A catalog of ``count`` items with random titles and years."""

    def word() -> str:
        return "".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(1, 4))).title()

    words = [word() for _ in range(20_000)]
    return [
        Item(str(i), " ".join(rng.choices(words, k=rng.randint(2, 5))), rng.randint(1920, 2024)) for i in range(count)
    ]


def slip(title: str, rng: random.Random) -> str:
    """The title with one random letter replaced."""
    place = rng.randrange(len(title))
    return title[:place] + rng.choice("abcdefgh") + title[place + 1 :]


def rate(work: Callable[[], object], lines: int) -> float:
    """Lines per second of CPU time, the best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return lines / best


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=1_000_000)
    arguments.add_argument("--lines", type=int, default=100_000)
    given = arguments.parse_args()
    rng = random.Random(0)
    catalog = items(given.items, rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    index = CatalogIndex(catalog, tolerance=2, similarity=90.0)
    built = time.process_time() - begun
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    chosen = rng.choices(catalog, k=given.lines)
    exact = [(item.title, item.year) for item in chosen]
    shifted = [(item.title.upper(), (item.year or 0) + rng.choice((-1, 1))) for item in chosen]
    slips = [(slip(item.title, rng), item.year) for item in chosen[: int(given.lines * SLIPS)]]
    text = "\n".join(f"{i}. {item.name}" for i, item in enumerate(chosen[:20], 1))
    plain = {(canonical(item.title), item.year): i for i, item in enumerate(catalog)}
    found = index.find_all(slips)
    baseline = rate(lambda: [plain.get((canonical(title), year)) for title, year in exact], len(exact))
    figures = {
        "exact": rate(lambda: index.find_all(exact), len(exact)),
        "year_tolerant": rate(lambda: index.find_all(shifted), len(shifted)),
        "fuzzy": rate(lambda: index.find_all(slips), len(slips)),
        "parsed": rate(lambda: [parse_list(text, ListSettings()) for _ in range(given.lines // 20)], given.lines),
        "dictionary": baseline,
    }
    print(
        json.dumps(
            {
                "items": len(index),
                "lines": given.lines,
                "build_seconds": round(built, 2),
                "build_gb": round(memory, 3),
                "lines_per_second": {name: round(value) for name, value in figures.items()},
                "ratio_to_dictionary": round(figures["exact"] / baseline, 3),
                "slips_found": round(sum(match is not None for match in found) / len(found), 3),
                "load_average": round(os.getloadavg()[0], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
