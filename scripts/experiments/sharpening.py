"""When does the unlikeliness reward maintain pass@N? One decision instead of a proof, so that many seeds take minutes.

A policy over 512 answers, softmax(W x) with x ~ N(0, 1) in 32 dimensions, gets problems that each have a set of right
answers. Answers that the starting policy finds likely are right more often; on the hard problems, three of ten, every
answer is right twenty times more rarely. Training uses rlpost's own functions (`policy_loss`, `normalise`, the reward's
`weights`): 400 steps of 16 groups of 32. pass@N needs no sampling: it is 1 - (1 - probability of all right answers)^N,
exactly.

Two worlds differ only in what held-out problems have in common with the training problems:

* ``fresh``: the right answers are drawn independently for each problem. The policy can only learn to trust its likely
  answers more.
* ``function``: the right answers are a function of x, which training can learn.

    scripts/experiments/sharpening.py runs/sharpening              # eight seeds, six minutes
    scripts/experiments/sharpening.py runs/sharpening --seeds 1 2

Writes `results.json`, `results.md`, `pass_at_n_fresh.svg`, `pass_at_n_function.svg`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import head, publish, row
from torch import Tensor

from rlpost.algorithms.advantages import AdvantageSettings, normalise
from rlpost.algorithms.intervals import over_seeds
from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.algorithms.sharpening import likelihood_ranks
from rlpost.observability.plots import Curve, draw
from rlpost.types import Denominators
from rlpost_rewards.unlikeliness import weights

ANSWERS, WIDTH, TRAINED, HELD_OUT = 512, 32, 4000, 800
GROUP, GROUPS, STEPS, MINIBATCH = 32, 16, 400, 256
NS = (1, 4, 16, 64, 256, 1024)
WORLDS = ("fresh", "function")
CONTROL = "KL 0.1"


@dataclass(frozen=True, slots=True)
class Arm:
    """One setting: weight of the KL term, and β of the unlikeliness reward."""

    kl: float
    beta: float = 0.0


ARMS = {
    "KL 0.02": Arm(0.02),
    CONTROL: Arm(0.1),
    "KL 0.2": Arm(0.2),
    "KL 0.4": Arm(0.4),
    "KL 0.1, unlikeliness 0.25": Arm(0.1, 0.25),
    "KL 0.1, unlikeliness 0.5": Arm(0.1, 0.5),
}


class World:
    """Problems of one seed, and the policy before training.

    Args:
        kind: one of `WORLDS`.
        seed: random seed of the starting policy and the problems.
    """

    def __init__(self, kind: str, seed: int):
        draws = torch.Generator().manual_seed(seed)
        self.start = 3 * torch.randn(ANSWERS, WIDTH, generator=draws) / WIDTH**0.5
        rule, direction = torch.randn(ANSWERS, WIDTH, generator=draws), torch.randn(WIDTH, generator=draws)
        self.x = torch.randn(TRAINED + HELD_OUT, WIDTH, generator=draws)
        lengths = self.x.norm(dim=1, keepdim=True)
        if kind == "fresh":
            lots = torch.rand(len(self.x), ANSWERS, generator=draws)
            hard = torch.rand(len(self.x), generator=draws) < 0.3
        else:  # with the same marginal probabilities, but determined by x
            lots = torch.special.ndtr(self.x @ rule.T / lengths)
            hard = torch.special.ndtr(self.x @ direction / (lengths[:, 0] * direction.norm() / WIDTH**0.5)) < 0.3
        chance = (ANSWERS / 8 * (self.x @ self.start.T / 2).softmax(1)).clamp(max=0.95)
        self.right = lots < torch.where(hard[:, None], 0.05 * chance, chance)

    def passes(self, policy: Tensor) -> dict[str, float]:
        """Exact pass@N over the held-out problems."""
        found = (self.x[TRAINED:] @ policy.T).double().softmax(1)
        solved = (found * self.right[TRAINED:]).sum(1).clamp(max=1.0)
        return {str(n): float((1 - (1 - solved) ** n).mean()) for n in NS}


def advantages(right: np.ndarray, logprobs: np.ndarray, beta: float) -> list[float] | None:
    """Advantages of one group ``[G]``; None if all or none are right (``algorithm.filter: binary``)."""
    if right.all() or not right.any():
        return None
    factors = weights(logprobs.tolist(), beta, "code", "average") if beta else np.ones(len(right))
    return normalise((right * np.asarray(factors)).tolist(), AdvantageSettings())


def train(world: World, arm: Arm, seed: int) -> tuple[Tensor, dict[str, float]]:
    """Train; returns the policy, and the mean distinct answers per group and reward of the last fifty steps."""
    draws = torch.Generator().manual_seed(1000 + seed)
    policy = world.start.clone().requires_grad_()
    optimizer = torch.optim.Adam([policy], lr=0.01)
    settings = LossSettings(kl_coef=arm.kl)
    course: list[tuple[float, float]] = []
    for step in range(STEPS):
        chosen = torch.randint(TRAINED, (GROUPS,), generator=draws)
        with torch.no_grad():
            table = (world.x[chosen] @ policy.T).log_softmax(1)
        answers = torch.multinomial(table.exp(), GROUP, replacement=True, generator=draws)
        old, right = table.gather(1, answers), world.right[chosen].gather(1, answers)
        if step >= STEPS - 50:
            distinct = np.mean([len(set(group)) for group in answers.tolist()])
            course.append((float(distinct), float(right.float().mean())))
        rows = [advantages(r, p, arm.beta) for r, p in zip(right.numpy(), old.double().numpy(), strict=True)]
        kept = [i for i, found in enumerate(rows) if found is not None]
        if not kept:
            continue
        given = torch.tensor([rows[i] for i in kept]).flatten()
        x = world.x[chosen[kept]].repeat_interleave(GROUP, 0)
        taken, before = answers[kept].flatten(), old[kept].flatten()
        for part in torch.randperm(len(given), generator=draws).split(MINIBATCH):
            loss = _loss(policy, world.start, x[part], taken[part], before[part], given[part], settings)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([policy], 1.0)
            optimizer.step()
    distinct, reward = np.mean(course, axis=0)
    return policy.detach(), {"distinct": float(distinct), "reward": float(reward)}


def _loss(
    policy: Tensor, start: Tensor, x: Tensor, taken: Tensor, before: Tensor, given: Tensor, settings: LossSettings
) -> Tensor:
    """The policy loss, with answers as completions of one token."""
    chosen, mask = taken[:, None], torch.ones(len(x), 1, dtype=torch.bool)
    with torch.no_grad():
        reference = (x @ start.T).log_softmax(1).gather(1, chosen)
    inputs = LossInputs(
        logprobs=(x @ policy.T).log_softmax(1).gather(1, chosen),
        proximal_logprobs=before[:, None],
        advantages=given[:, None],
        mask=mask,
        span_ids=torch.zeros(len(x), 1, dtype=torch.long),
        ref_logprobs=reference,
    )
    return policy_loss(inputs, settings, Denominators(len(x), len(x), len(x), 1))[0]


def uplift(world: World, policy: Tensor, seed: int) -> tuple[float, float]:
    """Share of right answers that became likelier, among the likeliest and among the least likely quarter of each
    group that the starting policy samples on the held-out problems.
    """
    draws = torch.Generator().manual_seed(2000 + seed)
    x = world.x[TRAINED:]
    before, after = (x @ world.start.T).log_softmax(1), (x @ policy.T).log_softmax(1)
    answers = torch.multinomial(before.exp(), GROUP, replacement=True, generator=draws)
    was, now, right = before.gather(1, answers), after.gather(1, answers), world.right[TRAINED:].gather(1, answers)
    ranks = torch.tensor([likelihood_ranks(group) for group in was.tolist()])
    first, last = right & (ranks < GROUP // 4), right & (ranks >= GROUP - GROUP // 4)
    return float((now > was)[first].float().mean()), float((now > was)[last].float().mean())


def measure(kind: str, seeds: list[int]) -> dict[str, Any]:
    """Measure every arm in one world; returns a list over seeds for each figure."""
    base: list[dict[str, float]] = []
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for seed in seeds:
        world = World(kind, seed)
        base.append(world.passes(world.start))
        for name, arm in ARMS.items():
            policy, course = train(world, arm, seed)
            top, bottom = uplift(world, policy, seed)
            found[name].append({**world.passes(policy), **course, "uplift_likeliest": top, "uplift_rarest": bottom})
        print(f"{kind}, seed {seed}", flush=True)
    return {"base": _columns(base), **{name: _columns(rows) for name, rows in found.items()}}


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [one[name] for one in rows] for name in rows[0]}


def table(kind: str, found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Means over seeds, and paired differences with their intervals, as Markdown."""
    ns = [str(n) for n in NS]
    others = ["distinct", "uplift_likeliest", "uplift_rarest"]
    lines = [f"## {kind}", "", *head(["", *(f"pass@{n}" for n in ns), *others])]
    for name, columns in found.items():
        cells = [f"{np.mean(columns[n]):.3f}" for n in ns]
        lines.append(row([name, *cells, *(f"{np.mean(columns[o]):.2f}" if o in columns else "" for o in others)]))
    for control in ("base", CONTROL):
        lines += ["", f"Minus {control}: mean (95 % over seeds)", "", *head(["", *(f"pass@{n}" for n in ns)])]
        for name in found:
            if name not in (control, "base"):
                pairs = [np.subtract(found[name][n], found[control][n]) for n in ns]
                lines.append(row([name, *map(_difference, pairs)]))
    return [*lines, ""]


def _difference(values: np.ndarray) -> str:
    if len(values) < 2:
        return f"{values.mean():+.3f}"
    low, high = over_seeds(values.tolist())
    return f"{values.mean():+.3f} ({low:+.3f}, {high:+.3f})"


def curves(found: dict[str, dict[str, list[float]]]) -> list[Curve]:
    """pass@N minus that of the start, with the standard error over seeds as band."""
    made = []
    for name in ARMS:
        gains = np.array([np.subtract(found[name][str(n)], found["base"][str(n)]) for n in NS])
        spread_over_tokens = gains.std(1, ddof=1) / len(gains[0]) ** 0.5 if gains.shape[1] > 1 else np.zeros(len(NS))
        mean = gains.mean(1)
        made.append(
            Curve(
                name,
                list(NS),
                mean.tolist(),
                (mean - spread_over_tokens).tolist(),
                (mean + spread_over_tokens).tolist(),
            )
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the experiment")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = {kind: measure(kind, given.seeds) for kind in WORLDS}
    for kind in WORLDS:
        title = f"{kind}: {HELD_OUT} held-out problems, {len(given.seeds)} seeds"
        label = "pass@N minus the start's (± standard error)"
        draw(curves(found[kind]), given.out / f"pass_at_n_{kind}.svg", title=title, x="N", y=label, base=2)
    lines = [line for kind in WORLDS for line in table(kind, found[kind])]
    print(publish(given.out, {"seeds": given.seeds, **found}, "\n".join(lines)))


if __name__ == "__main__":
    torch.set_num_threads(1)  # with matrices this small, more threads are slower
    main()
