"""What a catalog of many items costs: loading it, further processes that load it too, and lookups by level of matching.

Titles are generated: two to five words out of twenty thousand, with years, genre and votes, as JSON lines, or in
MovieLens' form (CSV; a fifth of the titles with an article behind them, a tenth with another name in brackets). Lines
are written as a model writes them. The baselines are what one writes in ten lines: a dictionary of (canonical title,
year) for exact lookups, and `rapidfuzz.process.extractOne` over its keys for slips; both in the same process. Memory is
that of processes of their own: peak, and, while all of them hold the catalog, private (USS) and proportional (PSS).
Prints one JSON document; seconds are CPU time unless they are called wall.

    scripts/bench_catalog.py --items 1000000 --lines 100000
    scripts/bench_catalog.py --items 1000000 --lines 100000 --form movielens
    scripts/bench_catalog.py --items 10000000 --lines 20000 --no-fuzzy --no-dictionary
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import load_catalog
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.verifier import CatalogVerifier

SLIPS = 0.05
SUBTITLES, BEHIND, ALIASES = 0.15, 0.2, 0.1
"""Shares of titles in MovieLens' form: with a subtitle, with an article behind, with another name."""
WHOLE_SEARCHES = 20
"""Slips that rapidfuzz looks for among all titles."""


def titles(count: int, rng: random.Random) -> Iterator[tuple[str, int]]:
    """Random titles and years."""

    def word() -> str:
        return "".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(1, 4))).title()

    words = [word() for _ in range(20_000)]
    for _ in range(count):
        yield " ".join(rng.choices(words, k=rng.randint(2, 5))), rng.randint(1920, 2024)


def write_jsonl(path: str, count: int) -> None:
    with open(path, "w", encoding="utf-8") as lines:
        for title, year in titles(count, random.Random(0)):
            lines.write(json.dumps({"title": title, "year": year, "genre": "Drama", "votes": 3}) + "\n")


def write_movielens(path: str, count: int) -> None:
    rng, others = random.Random(3), titles(count, random.Random(4))
    with open(path, "w", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["movieId", "title", "genres"])
        for number, (title, year) in enumerate(titles(count, random.Random(0)), 1):
            name = title.replace(" ", ": ", 1) if rng.random() < SUBTITLES else title
            if (drawn := rng.random()) < BEHIND:
                name = f"{name}, {'The' if drawn < BEHIND / 2 else 'A'}"
            if (drawn := rng.random()) < ALIASES:
                other = next(others)[0]
                name = f"{name} ({'a.k.a. ' if drawn < ALIASES / 2 else ''}{other})"
            table.writerow([number, f"{name} ({year})", "Comedy|Drama"])


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


def dictionary(path: str) -> dict[tuple[str, int], int]:
    """The baseline: a dictionary of titles and years."""
    found: dict[tuple[str, int], int] = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            found.setdefault((canonical(row["title"]), row["year"]), number)
    return found


def hold(path: str, kind: str) -> None:
    """Load a catalog in this process, print what it cost, and keep it until standard input ends."""
    begun, wall = time.process_time(), time.monotonic()
    kept = CatalogVerifier(path) if kind == "verifier" else dictionary(path)
    told = {
        "cpu_seconds": round(time.process_time() - begun, 2),
        "wall_seconds": round(time.monotonic() - wall, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    del kept


def processes(path: str, kinds: list[str]) -> list[dict[str, Any]]:
    """What each process paid to load the catalog, and its memory while all of them hold it."""
    command = [sys.executable, __file__, "--hold"]
    held: list[subprocess.Popen[str]] = []
    found: list[dict[str, Any]] = []
    try:
        for kind in kinds:
            held.append(
                subprocess.Popen([*command, kind, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert held[-1].stdout is not None
            found.append({"kind": kind, **json.loads(held[-1].stdout.readline())})
        for process, figures in zip(held, found, strict=True):
            memory = psutil.Process(process.pid).memory_full_info()
            figures |= {"private_mb": memory.uss >> 20, "proportional_mb": memory.pss >> 20}
    finally:
        for process in held:
            process.communicate()
    return found


def lookups(path: str, count: int, fuzzy: bool, plain: dict[tuple[str, int], int] | None) -> dict[str, Any]:
    """Lines per second by level of matching, beside the baselines in this process."""
    rng = random.Random(1)
    catalog = load_catalog(path)
    begun = time.process_time()
    index = CatalogIndex(catalog.items, tolerance=2, similarity=90.0 if fuzzy else None)
    built = time.process_time() - begun
    chosen = [catalog.items[rng.randrange(len(catalog.items))] for _ in range(count)]
    exact = [(item.title, item.year) for item in chosen]
    shifted = [(item.title.upper(), (item.year or 0) + rng.choice((-1, 1))) for item in chosen]
    undated = [(item.title, None) for item in chosen]
    unknown = [(f"{item.title} zz", item.year) for item in chosen]
    slips = [(slip(item.title, rng), item.year) for item in chosen[: int(count * SLIPS)]]
    text = "\n".join(f"{i}. {item.name}" for i, item in enumerate(chosen[:20], 1))
    figures = {
        "exact": rate(lambda: index.find_all(exact), len(exact)),
        "year_tolerant": rate(lambda: index.find_all(shifted), len(shifted)),
        "without_year": rate(lambda: index.find_all(undated), len(undated)),
        "parsed": rate(lambda: [parse_list(text, ListSettings()) for _ in range(count // 20)], count),
    }
    told: dict[str, Any] = {
        "exact_found": round(sum(match is not None for match in index.find_all(exact)) / len(exact), 4),
        "peak_gb_of_lookups": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }
    if not fuzzy:
        figures["unknown"] = rate(lambda: index.find_all(unknown), len(unknown))
    if plain is not None:
        figures["dictionary"] = rate(lambda: [plain.get((canonical(title), year or 0)) for title, year in exact], count)
        told["ratio_to_dictionary"] = round(figures["exact"] / figures["dictionary"], 3)
    if fuzzy:
        figures["fuzzy"] = rate(lambda: index.find_all(slips), len(slips))
        told["trigrams_seconds"] = round(built, 2)
        told["slips_found"] = round(sum(match is not None for match in index.find_all(slips)) / len(slips), 3)
    if fuzzy and plain is not None:
        from rapidfuzz import fuzz, process

        keys = [title for title, _ in plain]
        asked = [canonical(title) for title, _ in slips[:WHOLE_SEARCHES]]
        begun = time.process_time()
        for one in asked:
            process.extractOne(one, keys, scorer=fuzz.ratio, score_cutoff=90.0)
        figures["rapidfuzz_over_all"] = len(asked) / (time.process_time() - begun)
    return {"lines_per_second": {name: round(value, 1) for name, value in figures.items()}, **told}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=1_000_000)
    arguments.add_argument("--lines", type=int, default=100_000)
    arguments.add_argument("--form", choices=("jsonl", "movielens"), default="jsonl")
    arguments.add_argument("--workers", type=int, default=2, help="processes that hold the catalog at once")
    arguments.add_argument("--no-fuzzy", action="store_true", help="without trigrams, which take 100 bytes per title")
    arguments.add_argument("--no-dictionary", action="store_true", help="without the baselines")
    arguments.add_argument("--hold", nargs=2, metavar=("KIND", "FILE"), help="for this script's own processes")
    given = arguments.parse_args()
    if given.hold:
        hold(given.hold[1], given.hold[0])
        return
    with tempfile.TemporaryDirectory(prefix="bench-catalog-") as folder:
        os.environ["RLPOST_CACHE"] = folder
        path = str(Path(folder) / ("catalog.csv" if given.form == "movielens" else "catalog.jsonl"))
        (write_movielens if given.form == "movielens" else write_jsonl)(path, given.items)
        plainly = not given.no_dictionary and given.form == "jsonl"
        kinds = ["verifier"] * given.workers + ["dictionary"] * plainly
        found = {"items": given.items, "form": given.form, "lines": given.lines, "processes": processes(path, kinds)}
        plain = dictionary(path) if plainly else None
        found |= lookups(path, given.lines, not given.no_fuzzy, plain)
        found["file_mb"] = Path(path).stat().st_size >> 20
        stored = [file for file in Path(folder, "catalogs").rglob("*") if file.is_file()]
        found["cache_mb"] = sum(file.stat().st_size for file in stored) >> 20
    print(json.dumps(found | {"load_average": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main()
