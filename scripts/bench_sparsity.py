"""Speed and memory of comparing two checkpoints, finding ranks, and tracking the changes of a run.

`compare` is `rlpost.sparsity.compare` on a pair of bfloat16 files, a tenth of whose entries differ, without ranks, on
all cores, and the seconds of the null model in addition; `xor` reads the same bytes once with numpy, from the same page
cache, and XORs them. Both take turns; figures are medians. `rank` is the rank of a 1,024² update, compared with
`torch.linalg.svd`. `watch` tracks a model of 134 million parameters in memory once. `large` compares files that are
larger than the memory limit, in a separate process; its resident memory is counted above that of its imports. Prints
one JSON document.

    scripts/bench_sparsity.py
    scripts/bench_sparsity.py --gigabytes 1 --large 6 --folder /somewhere/with/room
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CHANGED = 0.1
ROWS = 4096
BLOCK = 2**22
LIMIT_MB = 1024


def write(file: Path, gigabytes: float, changed: float | None) -> None:
    """Write a bfloat16 checkpoint of square matrices; ``changed``: share of entries moved by one step of bfloat16."""
    count = max(round(gigabytes * 1e9 / (2 * ROWS * ROWS)), 1)
    size = 2 * ROWS * ROWS
    header: dict[str, Any] = {
        f"model.layers.{k}.up_proj.weight": {
            "dtype": "BF16", "shape": [ROWS, ROWS], "data_offsets": [k * size, (k + 1) * size]
        }
        for k in range(count)
    }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # repeated blocks are cheap to make, and the comparison does not depend on it
    source = np.random.default_rng(0)
    block = (0.02 * source.standard_normal(BLOCK, np.float32)).view(np.uint32) >> 16
    block = block.astype(np.uint16)
    if changed is not None:
        block = block + (source.random(BLOCK, np.float32) < changed).astype(np.uint16)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count * ROWS * ROWS // BLOCK):
            out.write(block.tobytes())


def xor(files: list[Path]) -> float:
    """Seconds to read both files once with numpy and XOR them."""
    begun = time.perf_counter()
    with files[0].open("rb") as one, files[1].open("rb") as two:
        while len(first := np.fromfile(one, np.uint8, 2**24)):
            np.bitwise_xor(first, np.fromfile(two, np.uint8, 2**24), out=first)
    return time.perf_counter() - begun


def compared(files: list[Path]) -> tuple[float, float]:
    """Seconds of our comparison, and of the null model and the figures."""
    from rlpost.sparsity.compare import compare
    from rlpost.sparsity.expected import Training, chance
    from rlpost.sparsity.findings import findings
    from rlpost.sparsity.pairs import pair

    begun = time.perf_counter()
    both = pair(*files)
    items = list(compare(both))
    counted = time.perf_counter() - begun
    found = findings(both, items, chance(items, Training(), 1e-5), 1e-5)
    taken = time.perf_counter() - begun - counted
    share = 1 - (found.whole.figures["unchanged"].value or 0)
    if abs(share - CHANGED) > 0.01:
        raise SystemExit(f"bench_sparsity: found {share:.4f} changed, {CHANGED} are")
    return counted, taken


def ranks(rounds: int) -> dict[str, Any]:
    """Seconds for the rank of 1,024² updates of several densities, and for a singular value decomposition."""
    import torch

    from rlpost.sparsity.rank import rank

    found: dict[str, Any] = {}
    for density in (0.01, 0.1, 1.0):
        source = torch.Generator().manual_seed(round(100 * density))
        delta = torch.randn(1024, 1024, generator=source) * (torch.rand(1024, 1024, generator=source) < density)
        ours, theirs, equal = [], [], []
        for _ in range(rounds):
            begun = time.perf_counter()
            mine = rank(delta)
            middle = time.perf_counter()
            values = torch.linalg.svd(delta).S
            theirs.append(time.perf_counter() - middle)
            ours.append(middle - begun)
            equal.append(mine == int((values > 1024 * torch.finfo(torch.float32).eps * values[0]).sum()))
        one, two = statistics.median(ours), statistics.median(theirs)
        found[str(density)] = {
            "seconds": one,
            "svd_seconds": two,
            "ratio": two / one,
            "equal": all(equal),
            "rank": mine,
        }
    return found


def watched(parameters: int, rounds: int) -> dict[str, float]:
    """Seconds for tracking a bfloat16 model in memory, a hundredth of which moves each time."""
    import torch

    from rlpost.sparsity.tracker import ChangeTracker

    weights = {
        f"layers.{k}": 0.02 * torch.randn(2**20, dtype=torch.float32).bfloat16() for k in range(parameters >> 20)
    }
    watch, seconds = ChangeTracker(weights.items()), []
    watch.track(weights.items())
    for _ in range(rounds):
        for tensor in weights.values():
            tensor.view(torch.int16)[::100] += 1
        begun = time.perf_counter()
        watch.track(weights.items())
        seconds.append(time.perf_counter() - begun)
    taken = statistics.median(seconds)
    return {"parameters": float(parameters), "seconds": taken, "seconds_per_billion": taken / parameters * 1e9}


def large(folder: Path, gigabytes: float) -> dict[str, float]:
    """Peak resident memory, above that of the imports, of a comparison in a separate process."""
    files = [folder / "large_before.safetensors", folder / "large_after.safetensors"]
    write(files[0], gigabytes, None)
    write(files[1], gigabytes, CHANGED)
    done = subprocess.run(
        [sys.executable, __file__, "--peak-of", *map(str, files)], capture_output=True, text=True, check=True
    )
    for file in files:
        file.unlink()
    return json.loads(done.stdout.splitlines()[-1])


def peak_of(files: list[Path]) -> None:
    """In the separate process: compare under a limit on allocated memory, and print peak memory and seconds."""
    from rlpost.sparsity.analysis import sparsity

    pages, page = Path("/proc/self/statm").read_text().split(), os.sysconf("SC_PAGE_SIZE")
    resident, data = (int(pages[k]) * page / 2**20 for k in (1, 5))
    # limits anonymous memory only: mapped and cached files do not count
    resource.setrlimit(resource.RLIMIT_DATA, (int((data + LIMIT_MB) * 2**20),) * 2)
    begun = time.perf_counter()
    found = sparsity(*files, matrices=1)
    seconds = time.perf_counter() - begun
    # not ru_maxrss: a new process starts with the peak of its parent
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    size = sum(file.stat().st_size for file in files) / 2**20
    print(json.dumps({"files_mb": size, "limit_mb": float(LIMIT_MB), "peak_above_imports_mb": peak - resident,
                      "seconds": seconds, "entries": found.whole.entries}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each file (1)")
    parser.add_argument("--large", type=float, default=3.0, help="of each of the larger files; 0: none (3)")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--folder", help="for the files; twice the larger ones have to fit")
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        peak_of([Path(file) for file in arguments.peak_of])
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        files = [folder / "before.safetensors", folder / "after.safetensors"]
        write(files[0], arguments.gigabytes, None)
        write(files[1], arguments.gigabytes, CHANGED)
        size = sum(file.stat().st_size for file in files) / 1e9
        compared(files), xor(files)  # compiles numba code and fills the page cache
        taken = [(*compared(files), xor(files)) for _ in range(arguments.rounds)]
        ours, null, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
        result: dict[str, Any] = {
            "compare": {
                "gb_per_s": size / ours,
                "xor_gb_per_s": size / theirs,
                "ratio": theirs / ours,
                "null_model_seconds": null,
            },
            "rank": ranks(arguments.rounds),
            "watch": watched(2**27, arguments.rounds),
        }
        for file in files:
            file.unlink()
        if arguments.large:
            result["large"] = large(folder, arguments.large)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
