"""CPU seconds and memory of premise retrieval on a made corpus as large as Mathlib's: bench_retrieval.py [PREMISES]."""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from rlpost_verifiers.lean.dojo.benchmark import read_corpus
from rlpost_verifiers.lean.dojo.retrieval import Corpus, _best, _bm25

PER_FILE = 35
QUERIES = 100


def write_corpus(path: Path, premises: int) -> None:
    """Write a corpus whose files import five earlier ones each; words have Zipf's frequencies."""
    rng = random.Random(0)
    words = [f"w{n}" for n in range(20_000)]
    weights = [1 / (n + 1) for n in range(len(words))]
    with path.open("w", encoding="utf-8") as file:
        for number in range(0, premises, PER_FILE):
            index = number // PER_FILE
            drawn = rng.choices(words, weights, k=PER_FILE * 24)
            listed = []
            for place in range(PER_FILE):
                own = drawn[place * 24 : place * 24 + 24]
                name = f"Ns.{own[0]}_{own[1]}_{number + place}"
                code = f"theorem {name} ({' '.join(own[2:8])} : {own[8]}) : {' '.join(own[9:])}"
                lines = {"start": [place + 1, 1], "end": [place + 1, 80], "kind": "commanddeclaration"}
                listed.append({"full_name": name, "code": code, **lines})
            imports = sorted({f"Lib/F{rng.randrange(index)}.lean" for _ in range(5)}) if index else []
            file.write(json.dumps({"path": f"Lib/F{index}.lean", "imports": imports, "premises": listed}) + "\n")


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    premises = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl"
        write_corpus(path, premises)
        begin, at_start = time.process_time(), peak_mb()
        corpus = Corpus(read_corpus(str(path)), str(path))
        read = time.process_time()
        scores = _bm25(corpus.premises)
        indexed = time.process_time()
        rng = random.Random(1)
        for _ in range(QUERIES):
            asked = rng.choice(corpus.premises)
            _best(scores(asked.code), corpus.accessible({"file_path": asked.path, "start": list(asked.start)}), 10)
        done = time.process_time()
    print(
        f"{len(corpus.premises)} premises in {len(corpus.paths)} files: read {read - begin:.1f} s, indexed "
        f"{indexed - read:.1f} s, {1000 * (done - indexed) / QUERIES:.1f} ms a row, {peak_mb() - at_start} MiB more"
    )


if __name__ == "__main__":
    main()
