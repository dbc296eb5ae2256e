"""What demonstrations cost for many conversations and a large catalog, and how near they are to those from one table.

Items, lists and wishes are generated: an item belongs to one of 200 groups, a user likes two of these, the teacher
lists items of them, a quarter of which the catalog lacks, and the user wanted one to three, popular ones more often. A
stand-in for the embedder gives an item its group's vector plus noise, as unit vectors; everything else is what `rlpost
demonstrate` runs. With ``--beside``, the same demonstrations are also made from one table of all scores
(`rlpost_verifiers.catalog.scores`). Prints one JSON document.

    scripts/bench_demonstrate.py --items 20000 --conversations 2000 --memory-gb 0.05 --beside
    scripts/bench_demonstrate.py --items 1000000 --conversations 20000 --memory-gb 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlpost_verifiers.catalog.demonstrations import Demonstrated, DemonstrationSettings, Remapper, demonstrate
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.verifier import CatalogVerifier

GROUPS, LISTED, OUTSIDE = 200, 20, 5
_NUMBER = re.compile(r"\d+")


class StandIn:
    """Unit vectors by the number in a text: its group's vector plus noise of the same length."""

    fingerprint: str

    def __init__(self, dimension: int):
        rng = np.random.default_rng(0)
        self.groups, self.first, self.second = (
            rng.standard_normal((count, dimension)).astype(np.float32) for count in (GROUPS, 9973, 10007)
        )
        self.fingerprint = f"stand-in {dimension}"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors ``[n, d]``."""
        numbers = [[int(one) for one in _NUMBER.findall(text)] for text in texts]
        main = np.array([one[0] for one in numbers], np.int64)
        # a conversation names two groups, an item its number and its year
        other = np.array([one["likes" in text] for one, text in zip(numbers, texts, strict=True)], np.int64)
        found = self.groups[main % GROUPS] + self.groups[other % GROUPS]
        found = found + self.first[main % 9973] + self.second[main % 10007]
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def made(count: int, items: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Conversations, and the teacher's list of each."""
    rng = random.Random(0)
    rows: dict[str, dict[str, Any]] = {}
    lists: dict[str, str] = {}

    def item(group: int, popular: bool) -> int:
        places = items // GROUPS
        return int(places * (rng.random() ** 4 if popular else rng.random())) * GROUPS + group

    for number in range(count):
        likes = rng.sample(range(GROUPS), 2)
        wanted = {item(rng.choice(likes), True) for _ in range(rng.randint(1, 3))}
        named = [f"Film {item(rng.choice(likes), False)} (2000)" for _ in range(LISTED - OUTSIDE)]
        named += [f"Film {items + item(rng.choice(likes), False)} (2000)" for _ in range(OUTSIDE)]
        rng.shuffle(named)
        rows[str(number)] = {
            "id": str(number),
            "prompt": f"likes {likes[0]} and {likes[1]}",
            "groundtruth_with_release_year": [[f"Film {one}", 2000] for one in sorted(wanted)],
        }
        lists[str(number)] = "\n".join(named)
    return rows, lists


def measured(rows: Any, lists: Any, remapper: Remapper) -> tuple[Demonstrated, dict[str, Any]]:
    begun, wall = time.process_time(), time.monotonic()
    found = demonstrate(rows, lists, remapper)
    told = {
        "cpu_seconds": round(time.process_time() - begun, 1),
        "wall_seconds": round(time.monotonic() - wall, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }
    return found, told | {name: round(value, 6) for name, value in found.figures.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=20_000)
    arguments.add_argument("--conversations", type=int, default=2_000)
    arguments.add_argument("--dimension", type=int, default=384, help="of the vectors; all-MiniLM-L6-v2 has 384")
    arguments.add_argument("--memory-gb", type=float, default=1.0, help="for scores, next to the vectors")
    arguments.add_argument("--penalty", type=float, default=0.01)
    arguments.add_argument("--beside", action="store_true", help="also from one table of all scores")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-demonstrate-") as folder:
        os.environ["RLPOST_CACHE"] = folder
        rows, lists = made(given.conversations, given.items)
        catalog = catalog_of({"title": f"Film {number}", "year": 2000} for number in range(given.items))
        verifier = CatalogVerifier(catalog)
        begun = time.process_time()
        settings = DemonstrationSettings(memory_gb=given.memory_gb, penalty=given.penalty)
        remapper = Remapper(verifier, StandIn(given.dimension), settings)
        told: dict[str, Any] = {**vars(given), "vectors_cpu_seconds": round(time.process_time() - begun, 1)}
        told["vectors_gb"] = round(remapper.items.nbytes / 2**30, 3)
        told["table_gb"] = round(given.items * given.conversations * 4 / 2**30, 3)
        told["before_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
        assert not settings.fits(given.conversations, given.items), "memory-gb holds the table; give less"
        found, told["streamed"] = measured(rows, lists, remapper)
        if given.beside:
            remapper.settings = DemonstrationSettings(memory_gb=1e6, penalty=given.penalty)
            other, told["table"] = measured(rows, lists, remapper)
            pairs = [(a["completion"], b["completion"]) for a, b in zip(found.rows, other.rows, strict=True)]
            told["equal_lists"] = round(sum(a == b for a, b in pairs) / len(pairs), 4)
            shared = [len(set(a.split("\n")) & set(b.split("\n"))) / settings.size for a, b in pairs]
            told["shared_items"] = round(sum(shared) / len(shared), 5)
    print(json.dumps(told | {"load_average": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main()
