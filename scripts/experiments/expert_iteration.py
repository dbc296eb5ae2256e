"""Expert iteration: does training anew on the proofs that a run has found beat going on with reinforcement learning?

Each round samples and learns by GRPO, harvests the accepted proofs of all rounds so far (`rlpost harvest`), and
fine-tunes on them (`rlpost sft`). Fine-tuning always starts from the seed's warm start, never from the round's own
policy, as in STaR (Zelikman et al. 2022, arXiv 2203.14465, section 3) and ReST-EM (Singh et al. 2023, arXiv 2312.06585,
section 3): what one round overfits does not pass into the next, and every accepted proof is seen equally often. The
next round's sampling starts from the fine-tuned policy. Both papers fine-tune alone; the reinforcement learning between
is the question here.

With N steps to a round, policies of round r have used r · N · (prompts · group) rollouts, except `rows`:

* `rl_r`: reinforcement learning alone, r rounds of N steps, each from the last one's policy. Round 1 is shared.
* `expert_r`: from round 2 on, N steps of reinforcement learning from `tuned_(r-1)`.
* `tuned_r`: the warm start, fine-tuned on all proofs of `rl_1, expert_2, …, expert_r`.
* `rows_r`: the warm start, fine-tuned further on its own rows for as many updates as `tuned_r`; no rollouts.

    scripts/experiments/expert_iteration.py runs/expert                 # three seeds
    scripts/experiments/expert_iteration.py runs/expert_small --small   # one seed, short
    scripts/experiments/expert_iteration.py runs/longer --steps 64 --rounds 3

Started again with the same folder it continues where it stopped. Writes `results.json` and `results.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arms import BASE, CONFIGS, Experiment, difference_lines, differences, estimates, head, measured, publish, row

import rlpost
from rlpost.actors.cluster import cluster
from rlpost.config.load import load
from rlpost.config.schema import ClusterSection
from rlpost.evaluation import compare
from rlpost.evaluation.outcomes import Outcome, read

RECIPE = "quickstart.yaml"
KS = (1, 8, 32)
HELD_OUT = ["data.eval.count=96", "data.eval.skip=96", "evaluation.samples=32", f"evaluation.k={list(KS)}"]
"""Theorems that follow the recipe's own held-out ones, on which its settings were chosen."""
SMALL = ["data.eval.count=32"]
TUNING = ["sft.lr=5.0e-4", "sft.epochs=4", "sft.batch_size=32"]
"""A quarter of the warm start's rate: nothing is learnt anew."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """One seed's rounds.

    Attributes:
        out: folder of the experiment.
        seed: random seed.
        rounds: number of rounds, 2 or more.
        steps: steps of reinforcement learning in a round.
        overrides: settings of all runs.
        tuning: settings of the fine-tuning.
    """

    out: Path
    seed: int
    rounds: int
    steps: int
    overrides: Sequence[str] = ()
    tuning: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Folder of the seed."""
        return self.out / f"seed_{self.seed}"

    def path(self, policy: str) -> Path:
        """Model folder of a policy."""
        return self.folder / policy / "model" if policy.startswith(("rl_", "expert_")) else self.folder / policy

    def policies(self) -> list[str]:
        """All policies by name, round by round."""
        by_round = ([f"rl_{r}", *([f"expert_{r}"] if r > 1 else []), f"tuned_{r}", f"rows_{r}"] for r in self.numbers())
        return [BASE, *(policy for names in by_round for policy in names)]

    def numbers(self) -> range:
        """The rounds' numbers."""
        return range(1, self.rounds + 1)

    def harvested(self, number: int) -> list[str]:
        """Runs whose proofs are harvested after a round."""
        return ["rl_1", *(f"expert_{r}" for r in range(2, number + 1))]

    def start_of(self, arm: str) -> str:
        """The policy that a run of reinforcement learning starts from."""
        kind, _, number = arm.partition("_")
        last = int(number) - 1
        return BASE if last == 0 else f"rl_{last}" if kind == "rl" else f"tuned_{last}"

    def experiment(self, arm: str) -> Experiment:
        """The arm as `arms.Experiment` trains it; each round draws its prompts in an order of its own."""
        number = int(arm.rpartition("_")[2])
        own = [f"run.steps={self.steps}", f"run.seed={self.seed + 1000 * (number - 1)}", "evaluation.after=true"]
        own += [f"model.path={self.path(self.start_of(arm))}", "logging.transcripts_every=1"]
        trained = [*HELD_OUT, "evaluation.greedy=false"]
        return Experiment(self.out, [self.seed], {arm: RECIPE}, RECIPE, self.overrides, trained, {arm: own})

    def run(self) -> None:
        """Run everything that is not done yet."""
        plain = self.experiment("rl_1")
        plain.warm_start(self.seed)
        with cluster(ClusterSection()):
            plain.measure_base(self.seed)
            for number in self.numbers():
                for arm in (f"rl_{number}", *([f"expert_{number}"] if number > 1 else [])):
                    self.timed(arm, lambda arm=arm: self.experiment(arm).train(arm, self.seed))
                self.timed(f"tuned_{number}", lambda number=number: self.tune(number))
                for policy in (f"tuned_{number}", f"rows_{number}"):
                    measured(plain.config(BASE, self.seed), self.path(policy), self.outcome_file(policy))

    def timed(self, what: str, work: Any) -> None:
        """Do a part of the seed's work, and print how long it took."""
        started = time.monotonic()
        if work() is False:
            raise SystemExit(f"{what} was interrupted; start it again with the same folder to go on")
        print(f"seed {self.seed} {what}: {time.monotonic() - started:.0f} s", flush=True)

    def tune(self, number: int) -> None:
        """Fine-tune the warm start on the proofs of all rounds so far, and on its own rows for as many updates."""
        proofs = self.folder / f"proofs_{number}.jsonl"
        done = self.folder / f"tuned_{number}.json"
        if done.is_file():
            return
        runs = [self.folder / arm for arm in self.harvested(number)]
        found = rlpost.harvest(runs, proofs, assurance=["kernel_replayed"], force=True)
        read_by = [f"sft.{name}={json.dumps(value)}" for name, value in found.sft.items()]
        made = self.fine_tune(f"tuned_{number}", [*read_by, *self.tuning])
        section = load(CONFIGS / RECIPE, [*self.overrides, *self.tuning]).config.sft
        assert section is not None
        assert isinstance(section.train, dict)
        # the trainer rounds the number of updates up
        epochs = (made["updates"] - 0.5) * section.batch_size / int(section.train["count"])
        rows = self.fine_tune(f"rows_{number}", [*self.tuning, f"sft.epochs={epochs}"])
        kept = {"rows": found.rows, "prompts": found.prompts, "accepted": found.accepted, "read": found.read}
        done.write_text(json.dumps({**kept, "updates": made["updates"], "updates_on_rows": rows["updates"]}))

    def fine_tune(self, policy: str, settings: Sequence[str]) -> dict[str, Any]:
        """``rlpost sft`` from the seed's warm start, in a process of its own; what it reports."""
        base = ["model.scratch=null", f"model.path={self.folder / BASE}", f"run.seed={self.seed}"]
        command = [sys.executable, "-m", "rlpost.cli", "sft", str(CONFIGS / RECIPE), *self.overrides, *base, *settings]
        output = ["--output", str(self.path(policy)), "--quiet", "--json"]
        said = subprocess.run([*command, *output], check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(said.stdout.splitlines()[-1])  # after the trainer's own lines

    def outcome_file(self, policy: str) -> Path:
        """The file with a policy's outcomes on the held-out theorems."""
        if policy.startswith(("rl_", "expert_")):
            return self.folder / policy / "evaluations" / "after.jsonl"
        return self.folder / f"{policy}.jsonl"

    def harvests(self) -> dict[str, Any]:
        """Of each round, how many rows were harvested, and how many updates were made of them."""
        return {str(r): json.loads((self.folder / f"tuned_{r}.json").read_text()) for r in self.numbers()}


def summarise(seeds: Sequence[Rounds]) -> dict[str, Any]:
    """All results, as one document: pass@k of each policy with intervals, and differences at equal rollouts."""
    first = seeds[0]
    found: dict[str, list[list[Outcome]]] = {
        policy: [read(one.outcome_file(policy)) for one in seeds] for policy in first.policies()
    }
    measures = {str(k): compare.passes(k) for k in KS}
    config = load(CONFIGS / RECIPE, first.overrides).config
    by_step = config.rollout.prompts_per_step * config.rollout.group_size
    last = first.rounds
    settings = {"rounds": last, "steps": first.steps, "overrides": list(first.overrides), "tuning": list(first.tuning)}
    return {
        "recipe": RECIPE,
        **settings,
        "seeds": [one.seed for one in seeds],
        "prompts": len(found[BASE][0]),
        "samples": len(found[BASE][0][0].samples),
        "rollouts": {str(r): r * first.steps * by_step for r in first.numbers()},
        "pass": estimates(found, measures),
        **differences(found, measures, [BASE, *(f"rl_{r}" for r in first.numbers()), f"rows_{last}"]),
        "harvests": {str(one.seed): one.harvests() for one in seeds},
    }


def table(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rounds, last = range(1, found["rounds"] + 1), found["rounds"]
    samples = f"{found['prompts']} held-out theorems, {found['samples']} samples each, seeds {found['seeds']}"
    lines = [f"{samples}; {found['steps']} steps a round.", ""]
    lines += head(["policy", "rollouts", *(f"pass@{k} [95 % over theorems]" for k in KS)])
    for policy, by_k in found["pass"].items():
        number = policy.rpartition("_")[2]
        used = 0 if policy == BASE or policy.startswith("rows") else found["rollouts"][number]
        lines.append(row([policy, f"{used:,}", *(_cell(by_k[str(k)]) for k in KS)]))
    columns = {str(k): f"pass@{k}" for k in KS}
    at_end = {f"minus_rl_{last}": _only(found[f"minus_rl_{last}"], (f"expert_{last}", f"tuned_{last}"))}
    at_end |= {f"minus_rows_{last}": _only(found[f"minus_rows_{last}"], (f"tuned_{last}", f"rl_{last}"))}
    lines += difference_lines(at_end, [f"rl_{last}", f"rows_{last}"], columns, "theorems")
    lines += ["", *head(["seed", *(f"rows (prompts) of round {r}" for r in rounds), "updates"])]
    for seed, by_round in found["harvests"].items():
        cells = [f"{by_round[str(r)]['rows']} ({by_round[str(r)]['prompts']})" for r in rounds]
        lines.append(row([seed, *cells, ", ".join(str(by_round[str(r)]["updates"]) for r in rounds)]))
    return "\n".join(lines) + "\n"


def _cell(estimate: Mapping[str, Any]) -> str:
    low, high = estimate["problems"]
    return f"{estimate['mean']:.3f} [{low:.3f}, {high:.3f}]"


def _only(rows: Mapping[str, Any], policies: Sequence[str]) -> dict[str, Any]:
    return {policy: rows[policy] for policy in policies}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the experiment")
    parser.add_argument("--small", action="store_true", help="one seed, 8 steps a round, 32 theorems")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 1 2 3, with --small 1")
    parser.add_argument("--rounds", type=int, default=2, help="2 or more")
    parser.add_argument("--steps", type=int, help="of reinforcement learning in a round; default: 32, with --small 8")
    parser.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="for all runs alike")
    parser.add_argument("--tuning", nargs="+", default=[], metavar="sft.key=value", help="for the fine-tuning")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error(f"--rounds is {given.rounds}; give 2 or more")
    out, steps = given.out.resolve(), given.steps or (8 if given.small else 32)
    overrides = [*(SMALL if given.small else []), *given.set]
    tuning = [*TUNING, *given.tuning]
    seeds = [
        Rounds(out, seed, given.rounds, steps, overrides, tuning)
        for seed in given.seeds or ([1] if given.small else [1, 2, 3])
    ]
    for one in seeds:
        one.folder.mkdir(parents=True, exist_ok=True)
        one.run()
    found = summarise(seeds)
    print(publish(out, found, table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
