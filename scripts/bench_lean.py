"""The cost of a Lean check, compared with one cold Lean process per proof in the same run; prints JSON.

    python scripts/bench_lean.py                 about a minute on two cores
    python scripts/bench_lean.py --soak 20000    also that many checks, to see what they leave over
    python scripts/bench_lean.py --fuzz 2500     also that many mutated answers, of which each must be decided

Compare ratios: ``throughput_ratio`` (one warm worker over one cold process per proof; ``_bare``: Python without its
site packages) and ``scaling`` (two workers over one) come from alternating rounds, so that a busy machine slows both
sides alike. A cold process only elaborates; a warm check is also audited and replayed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from fuzz_lean import fuzz

from rlpost.protocols import Reply, Turn
from rlpost.types import VerifyItem
from rlpost_verifiers.lean import theorems
from rlpost_verifiers.lean.embedded import installation
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.environments.repair import LeanRepair
from rlpost_verifiers.lean.source import build_source
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.theorems import generate, refuted
from rlpost_verifiers.lean.verifier import LeanVerifier

COLD = (
    "import ctypes, sys; lean = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL); "
    "words = [b'lean', b'--json', b'-j1', b'-o', b'Cand.olean', b'Cand.lean']; "
    "sys.exit(lean.lean_main(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None)))"
)
"""Program that a verifier without a fork server runs for each proof; it neither audits nor replays."""


def main() -> None:
    """Run the measurements that the arguments ask for."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--proofs", type=int, default=400, help="distinct proofs per measurement")
    arguments.add_argument("--rounds", type=int, default=3, help="how often the sides take turns")
    arguments.add_argument("--cold", type=int, default=10, help="cold processes per round")
    arguments.add_argument("--soak", type=int, default=0, help="checks of the endurance run; 0 for none")
    arguments.add_argument("--fuzz", type=int, default=0, help="mutated answers (fuzz_lean.py); 0 for none")
    chosen = arguments.parse_args()
    tasks = [ProofTask(each.statement, each.proof) for each in generate(chosen.proofs, seed=5)]
    found: dict[str, Any] = {"lean": installation.VERSION, "cpus": os.cpu_count(), "proofs": len(tasks)}
    with EmbeddedLean(workers=1) as one, EmbeddedLean(workers=2) as two:
        found["backend"] = one.fingerprint
        found |= measure(tasks, one, two, chosen.rounds, chosen.cold)
    found["batch"] = measure_batch()
    found["repair"] = measure_repair(chosen.proofs // 2, chosen.rounds)
    if chosen.soak:
        found["soak"] = soak(chosen.soak)
    if chosen.fuzz:
        found["fuzz"] = fuzz(chosen.fuzz, seed=1)
    print(json.dumps(found, indent=1))


def measure(tasks: Sequence[ProofTask], one: EmbeddedLean, two: EmbeddedLean, rounds: int, cold: int) -> dict[str, Any]:
    """Cost of a check, throughput against cold processes, and scaling from one worker to two."""
    for lean in (one, two):
        lean.check(tasks)
    rates: dict[str, list[float]] = {"cold": [], "cold_bare": [], "one": [], "two": []}
    checks: list[float] = []
    overhead: list[float] = []
    for turn in range(rounds):
        rates["cold"].append(cold / timed_cold(tasks[turn * cold :][:cold]))
        rates["cold_bare"].append(cold / timed_cold(tasks[turn * cold :][:cold], "-S", "-E"))
        before, spent = time.perf_counter(), cpu(one)
        verdicts = one.check(tasks)
        rates["one"].append(len(tasks) / (time.perf_counter() - before))
        assert {(v.outcome, v.assurance) for v in verdicts} == {("accepted", "kernel_replayed")}
        inside = [v.cpu_seconds or 0.0 for v in verdicts]
        checks += inside
        overhead.append((cpu(one) - spent - sum(inside)) / len(tasks))
        before = time.perf_counter()
        two.check(tasks)
        rates["two"].append(len(tasks) / (time.perf_counter() - before))
    best = {name: max(values) for name, values in rates.items()}
    return {
        "cpu_ms_median": round(1e3 * (statistics.median(checks) + statistics.mean(overhead)), 2),
        "cpu_ms_in_lean_median": round(1e3 * statistics.median(checks), 2),
        "cpu_ms_around_it_mean": round(1e3 * statistics.mean(overhead), 2),
        "checks_per_second": {name: round(rate, 1) for name, rate in best.items()},
        "throughput_ratio": round(best["one"] / best["cold"], 2),
        "throughput_ratio_bare": round(best["one"] / best["cold_bare"], 2),
        "scaling": round(best["two"] / best["one"], 2),
        "load_average": round(os.getloadavg()[0], 2),
    }


def timed_cold(tasks: Sequence[ProofTask], *flags: str) -> float:
    """Seconds for checking proofs one after another, each in a new Python process."""
    library = installation.find_library()
    path = installation.compile_prelude(library).parent
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for task in tasks:
            (Path(folder) / "Cand.lean").write_text(build_source(task), encoding="utf-8")
            command = [sys.executable, *flags, "-c", COLD, str(library)]
            subprocess.run(command, cwd=folder, env={"LEAN_PATH": str(path)}, check=True, capture_output=True)
        return time.perf_counter() - start


def cpu(lean: EmbeddedLean) -> float:
    """CPU seconds used so far by this process, the fork servers and all their finished checks."""
    servers = [psutil.Process(pid).cpu_times() for pid in lean.pids()]
    return time.process_time() + sum(t.user + t.system + t.children_user + t.children_system for t in servers)


def measure_batch(size: int = 512, duplicates: float = 0.4) -> dict[str, Any]:
    """Measure a batch as in training: right and wrong answers, a share ``duplicates`` of them repeated."""
    distinct = round(size * (1 - duplicates))
    right = [ProofTask(each.statement, each.proof) for each in generate(distinct // 2, seed=9)]
    wrong = [ProofTask(row["statement"], row["proof"]) for row in refuted(distinct - len(right), seed=9)]
    tasks = [task for pair in zip(right, wrong, strict=False) for task in pair]
    tasks += [tasks[7 * index % len(tasks)] for index in range(size - len(tasks))]
    with LeanVerifier(workers=os.cpu_count() or 1) as verifier:
        start = time.perf_counter()
        verdicts = verifier.verify_tasks(tasks)
        seconds = time.perf_counter() - start
    return {
        "answers": len(tasks),
        "distinct": len(set(tasks)),
        "accepted": sum(v.outcome == "accepted" for v in verdicts),
        "undecided": sum(v.outcome == "undecided" for v in verdicts),
        "seconds": round(seconds, 2),
        "answers_per_second": round(len(tasks) / seconds, 1),
    }


def measure_repair(size: int, rounds: int) -> dict[str, Any]:
    """What Lean's messages cost: ``lean.repair`` answering wrong proofs, over the bare check of the same proofs.

    ``cost_ratio`` is of CPU time, from alternating rounds; ``_terms`` and ``_tactics`` are ways to write a proof. Some
    errors of tactics need a second reading, which the bare check goes without; ``told_share``: answers with a message.
    """
    found: dict[str, Any] = {}
    for style in ("term", "tactic"):
        rows = theorems.rows(size, 11, styles={style: 1.0})
        wrong = [VerifyItem(row, other["proof"]) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]
        sides = [(bare_cpu(wrong), *told_cpu(wrong)) for _ in range(rounds)]
        bare, told = min(side[0] for side in sides), min(side[1] for side in sides)
        found[f"cost_ratio_{style}s"] = round(told / bare, 3)
        found[f"cpu_ms_{style}s"] = {"bare": round(1e3 * bare / size, 2), "told": round(1e3 * told / size, 2)}
        found[f"told_share_{style}s"] = round(sides[0][2], 3)
    return found


def bare_cpu(wrong: Sequence[VerifyItem]) -> float:
    """CPU seconds of checking answers, without a second reading of those of which Lean says nothing."""
    with LeanVerifier(explain=False) as verifier:
        return checked_cpu(verifier, lambda: verifier.verify_batch(wrong))


def told_cpu(wrong: Sequence[VerifyItem]) -> tuple[float, float]:
    """CPU seconds of the environment's answers, and the share of rejected ones that hold a message."""
    environment = LeanRepair(timeout_s=10.0)
    replies: list[Reply] = []
    with environment.verifier as verifier:
        seconds = checked_cpu(verifier, lambda: replies.extend(answered(environment, wrong)))
    rejected = [reply for reply in replies if not reply.done]
    return seconds, sum("error" in str(reply.observation) for reply in rejected) / max(len(rejected), 1)


def answered(environment: LeanRepair, items: Sequence[VerifyItem]) -> Iterator[Reply]:
    """The environment's answer to the first turn of a trajectory for each item."""
    for item in items:
        environment.begin(item.columns, 1)
        yield environment.reply(Turn(0, item.text, False))


def checked_cpu(verifier: LeanVerifier, work: Callable[[], object]) -> float:
    """CPU seconds of this process and of Lean that some work takes, after a first check."""
    lean = verifier._backend
    assert isinstance(lean, EmbeddedLean)
    verifier.verify_tasks([ProofTask("True", "trivial")])
    spent = cpu(lean)
    work()
    return cpu(lean) - spent


def soak(checks: int) -> dict[str, Any]:
    """Processes, descriptors and memory, of this process and the fork servers, before and after many checks."""
    chunk = [ProofTask(each.statement, each.proof) for each in generate(500, seed=3)]
    with EmbeddedLean(workers=2) as lean:
        lean.check(chunk)
        before, done, start = residue(lean), 0, time.perf_counter()
        while done < checks:
            lean.check(chunk)
            done += len(chunk)
        after, seconds = residue(lean), time.perf_counter() - start
    return {
        "checks": done,
        "seconds": round(seconds, 1),
        "before": before,
        "after": after,
        "growth": {name: round(after[name] / before[name] - 1, 4) for name in ("rss_mb", "server_rss_mb")},
    }


def residue(lean: EmbeddedLean) -> dict[str, float]:
    """Present processes, descriptors and memory; memory is read after the allocator has returned free pages."""
    ctypes.CDLL(None).malloc_trim(0)
    here, servers = psutil.Process(), [psutil.Process(pid) for pid in lean.pids()]
    children = [child for process in (here, *servers) for child in process.children()]
    return {
        "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in children),
        "processes": len(children),
        "descriptors": here.num_fds() + sum(server.num_fds() for server in servers),
        "rss_mb": here.memory_info().rss / 2**20,
        "server_rss_mb": sum(server.memory_info().rss for server in servers) / 2**20,
    }


if __name__ == "__main__":
    main()
