"""A small real run for tests of the whole loop: its folder, and the files it has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

JUDGE = Path(__file__).resolve().parent / "judge.py"


def prepare(folder: Path, model: str, run: dict[str, Any], judge: str, **sections: Any) -> Path:
    """Write prompts and a configuration; ``sections`` replace the usual ones, ``judge`` names a function of `judge`."""
    rows = [{"id": f"t{i}", "prompt": f"∀ p q : Prop, p {c} q :="} for i, c in enumerate("→∧∨↔→∧")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "run": {"seed": 5, **run},
        "model": {"path": model, "dtype": "float32"},
        "data": {"source": "jsonl", "train": "prompts.jsonl"},
        "rollout": {"group_size": 4, "prompts_per_step": 4, "max_tokens": 12, "kv_cache_mb": 64},
        "scoring": {
            "verifier": "function",
            "verifier_args": {"function": f"{JUDGE}:{judge}"},
            "truncated": "keep",
        },
        "optimizer": {"lr": 1e-3},
        "learner": {"micro_tokens": 256},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **sections}))
    return folder


def lines(work: Path, name: str) -> list[dict]:
    """The metrics of a run so far, one row per step."""
    file = work / "runs" / name / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def weights(work: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of the final model of a run."""
    from safetensors.torch import load_file

    return load_file(work / "runs" / name / "model" / "model.safetensors")
