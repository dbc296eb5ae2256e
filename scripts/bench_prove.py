"""Whole-proof sampling against best-first search over tactics on held-out generated theorems; prints JSON.

    python scripts/bench_prove.py --model runs/quickstart/model
    python scripts/bench_prove.py --model DIR --config FILE --arms sampling "best_first prove.width=4 prove.alpha=0.5"

Every arm has the same number of model calls per theorem. Nothing is trained. Theorems come from `lean_theorems`, split
eval, within the limits of the configuration's own ``data.eval`` where that is the source. A model that cannot write
tactics has the reason in place of figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlpost.commands.prove import config_file, prove_file
from rlpost.config.load import load
from rlpost.data.models import resolve_path
from rlpost.errors import UserError
from rlpost_verifiers.lean.theorems import rows


def main() -> None:
    """Run every arm on the same theorems."""
    arguments = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    arguments.add_argument("--model", required=True, help="Hugging Face folder")
    arguments.add_argument("--config", help="configuration it was trained with (default: that of its run folder)")
    arguments.add_argument("--theorems", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=11, help="of the theorems")
    arguments.add_argument("--attempts", type=int, default=32, help="model calls per theorem")
    arguments.add_argument(
        "--arms", nargs="+", default=["sampling", "best_first"], help="a method, and section.key=value after it"
    )
    chosen = arguments.parse_args()
    config = chosen.config or str(config_file(resolve_path(chosen.model)))
    given = theorems(config, chosen.theorems, chosen.seed)
    found: dict[str, Any] = {"model": chosen.model, "theorems": len(given), "attempts": chosen.attempts, "arms": {}}
    with tempfile.TemporaryDirectory(prefix="rlpost-prove-") as folder:
        file = Path(folder) / "theorems.jsonl"
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given), encoding="utf-8")
        for number, arm in enumerate(chosen.arms):
            output = Path(folder) / f"{number}.jsonl"
            found["arms"][arm] = measure(file, chosen.model, config, chosen.attempts, arm.split(), output)
    print(json.dumps(found, indent=1))


def theorems(config: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Held-out theorems within the limits that the configuration evaluates on."""
    data = load(config).config.data
    limits = dict(data.eval) if data.source == "lean_theorems" and isinstance(data.eval, dict) else {}
    return rows(**{**limits, "count": count, "seed": seed, "split": "eval"})


def measure(
    file: Path, model: str, config: str, attempts: int, arm: Sequence[str], output: Path
) -> dict[str, float | str]:
    """Figures of one arm."""
    method, *overrides = arm
    settings = load(config, [f"prove.method={method}", f"prove.attempts={attempts}", *overrides]).config
    try:
        found = prove_file(file, model, config=settings, output=output, log=lambda text: print(text, file=sys.stderr))
    except UserError as error:
        return {"refused": str(error)}
    return dict(found.figures)


if __name__ == "__main__":
    main()
