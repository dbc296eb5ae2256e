"""The registry of metrics, with unit and meaning. A run cannot write a name that is not registered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.trajectory import GroupReceipt, Receipt
from rlpost.types import Verdict

METRICS: dict[str, str] = {
    "step": "rollout batches so far, 0-based",
    "policy_version": "published syncs so far",
    "reward_mean": "mean over decided trajectories of the sum of reward spans; a group of which none finished counts "
    "as the least of the others, if that is less",
    "reward_std": "standard deviation of the same",
    "reward_se": "standard error of reward_mean, over prompts",
    "reward/*": "by reward stage: mean and standard deviation (std) over decided trajectories of what it added; and "
    "figures of its own, means over groups",
    "pass_rate": "accepted share of decided trajectories",
    "solved_share": "share of prompts with at least one accepted completion",
    "undecided_share": "share of trajectories without a reward, because their check stayed undecided or no stage paid",
    "undecided_same_share": "largest share of undecided answers that say the same: near 1, the policy may hide there",
    "undecided_repeated": "texts that stayed undecided in two or more of the last scoring.undecided_window batches",
    "unrewarded_share": "share of trajectories that no reward stage gave a value, although nothing failed",
    "truncated_share": "share of trajectories cut at a limit on tokens or turns",
    "cached_share": "share of verdicts taken from the verifier's cache",
    "unique_share": "distinct texts among trajectories",
    "unique_accepted": "distinct accepted texts in the batch",
    "all_accepted_share": "share of prompts with only accepted completions, which algorithm.filter: binary drops",
    "trained_samples": "samples in the update",
    "kept_groups": "groups in the update",
    "refill/*": "algorithm.filter_batches: batches rolled out for the step, groups that are still missing, and groups "
    "that passed the filter and were not needed (unused)",
    "turns_mean": "mean policy turns per trajectory, where an environment answers",
    "unknown_tokens": "observed tokens per trajectory that stand for text which the tokenizer does not know",
    "failed_turns": "share of turns that an environment called failures, such as tactics that Lean refuses",
    "repair/*": "data.repair: rejected answers in the pool after the step (pool); share of the groups that are from it "
    "(share); pass_rate and reward_mean of those, fresh_pass_rate and fresh_reward_mean of the data set's; share of "
    "answers identical to the rejected one (identical); share of their prompts' tokens that the vocabulary lacks "
    "(unknown); answers dropped for their age (dropped_old), for room (dropped_full), as too long a prompt "
    "(dropped_long), because their prompt is gone (dropped_unknown), or without messages (dropped_silent)",
    "length_mean": "mean sampled tokens per trajectory",
    "length_max": "most sampled tokens of a trajectory",
    "queue_seconds": "mean wait for a worker of the verifier, over checks that were not cached",
    "check_seconds": "mean wall-clock time of the same checks",
    "check_cpu_seconds": "mean CPU time of the same checks",
    "assurance/*": "share of accepted verdicts that rest on this",
    "reason/*": "share of verdicts with this reason",
    "loss": "policy loss; near zero on-policy whatever happens",
    "kl": "mean KL estimate to the reference, weighted as the loss, nats per token",
    "entropy": "mean entropy of the policy's full distribution at trained tokens, nats per token",
    "identical_groups": "share of groups of two or more whose answers are all the same",
    "ratio": "mean importance ratio",
    "clip_frac/*": "share of tokens whose gradient the clip removed (CISPO: whose weight it clipped): low from below, "
    "high from above; low/epoch_N and high/epoch_N by pass over the batch (epoch_0 begins on-policy)",
    "loss/*": "figures that a loss of your own returns",
    "importance": "mean weight of the proximal (DPPO: the current) against the rollout policy, within its limits",
    "importance_masked": "share of tokens that algorithm.importance.mode: mask leaves out",
    "mismatch": "mean |log p proximal - log p rollout| over trained tokens, nats",
    "mismatch/*": "its parts by cause (numerics, staleness, truncation: -log of the probability that the learner gives "
    "to what the engine sampled from), and the mean signed difference by place (first, border, end, last, repeated, "
    "inner)",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
    "moved": "share of master weights that the step's first update moved, of those looked at (about 65,536 on a rank) "
    "whose step float32 can show",
    "updates": "optimizer updates in the step",
    "skipped_updates": "updates left out, as not finite or by optimizer.skip_grad_norm, over the whole run",
    "seconds/*": "wall-clock time by stage",
    "tokens_per_second": "sampled tokens by rollout time",
    "sync/bytes": "bytes published",
    "parity/total": "mean |log p engine - log p learner| on pinned prompts as both are now, nats per token",
    "parity/numerics": "what remains of it with equal weights and an emptied prefix cache",
    "parity/staleness": "what the learner has moved since the version the engines serve",
    "parity/reference": "mean |log p now - log p at the start| of the reference policy on pinned completions",
    "parity/stale_cache": "what emptying the engine's prefix cache changes",
    "invariance/micro_batching": "relative gradient difference between two layouts of the same samples, first batch",
    "invariance/reference": "relative gradient difference to plain torch, first batch",
    "recoveries/*": "actors of a kind replaced so far",
    "canary/tensors": "tensors compared after the sync",
    "canary/changed_tensors": "published tensors whose bytes changed",
    "canary/probe_mean": "mean |log p engine - log p learner| on probes, nats per token",
    "canary/probe_max": "maximum of the same",
    "changes/*": "published weights since the last look (stepped, step_norm, angle) and since the start; "
    "bfloat16 casts, stored_: as published",
    "trainable_parameters": "numbers that the optimizer owns",
    "memory_mb/*": "what a rank of the learner holds of a kind, MiB; _planned: as rlpost plan predicts it",
    "tuning/warmup": "batches so far from which the tuning method learns what to train",
    "rss_mb/*": "resident memory of an actor, MiB",
    "own_mb/*": "the part of it that is not shared with others (the object store's pages are), MiB",
    "eval/*": "evaluation figures",
}

RENAMED: dict[str, str] = {
    "clip_low": "clip_frac/low",
    "clip_high": "clip_frac/high",
    "trained_parameters": "trainable_parameters",
}
"""Old names of metrics in run folders of earlier versions, and their new names."""


def current_name(name: str) -> str:
    """The current name of a metric.

    >>> current_name("clip_low/epoch_1"), current_name("loss")
    ('clip_frac/low/epoch_1', 'loss')
    """
    family, slash, member = name.partition("/")
    return RENAMED.get(family, family) + slash + member


def check_names(names: Iterable[str]) -> None:
    """Raise KeyError for a metric that is not registered."""
    for name in names:
        family, slash, member = name.partition("/")
        if name not in METRICS and not (slash and member and f"{family}/*" in METRICS):
            raise KeyError(f"metric {name!r} is not in rlpost.observability.metrics.METRICS; register it there")


def describe_groups(groups: Sequence[GroupReceipt]) -> dict[str, float]:
    """Metrics of a scored rollout batch. A share over nothing is left out, not 0."""
    members = [(g.prompt.id, t) for g in groups for t in g.trajectories]
    verdicts = [v for g in groups for v in g.verdicts if v is not None]
    lengths = [t.sampled for _, t in members]
    metrics = {
        "truncated_share": _share(t.status in ("length", "turns") for _, t in members),
        "unique_share": len({(name, t.text) for name, t in members}) / max(len(members), 1),
        "length_mean": float(np.mean(lengths)),
        "length_max": float(max(lengths)),
        "undecided_share": undecided_share(groups),
        "unrewarded_share": sum(undecided_of(group).unrewarded for group in groups) / max(len(members), 1),
    }
    if any(t.failed is not None for _, t in members):
        metrics |= _turns([t for _, t in members])
    if verdicts:
        metrics["cached_share"] = _share(v.cached for v in verdicts)
        for reason in sorted({v.reason for v in verdicts}):
            metrics[f"reason/{reason}"] = _share(v.reason == reason for v in verdicts)
        metrics |= _costs(verdicts) | prefixed("assurance", assurances(verdicts))
        decided = [v for v in verdicts if v.outcome != "undecided"]
        # without a verifier only aborted completions have a verdict: it says nothing about the others
        if decided and len(verdicts) == len(members):
            metrics["pass_rate"] = _share(v.outcome == "accepted" for v in decided)
            solved = [any(v is not None and v.outcome == "accepted" for v in g.verdicts) for g in groups]
            metrics["solved_share"] = _share(solved)
            metrics["all_accepted_share"] = _share(_all_accepted(g) for g in groups)
            accepted = {
                (g.prompt.id, t.text)
                for g in groups
                for t, v in zip(g.trajectories, g.verdicts, strict=True)
                if v is not None and v.outcome == "accepted"
            }
            metrics["unique_accepted"] = float(len(accepted))
    return metrics | _rewards(groups) | prefixed("reward", stage_figures(groups))


def _turns(members: Sequence[Receipt]) -> dict[str, float]:
    """Metrics of trajectories with an environment."""
    turns = sum(len(one.turns) for one in members)
    return {
        "turns_mean": turns / len(members),
        "failed_turns": sum(one.failed or 0 for one in members) / turns,
        "unknown_tokens": sum(one.unknown for one in members) / len(members),
    }


def _rewards(groups: Sequence[GroupReceipt]) -> dict[str, float]:
    """Mean, standard deviation and standard error of all rewards; nothing if there are none."""
    paid = [
        (_all_cut(g), [sum(s.value for s in r if s.channel == "reward") for r in g.rewards if r is not None])
        for g in groups
    ]
    # a group that was cut altogether is paid the floor, and 0 would be the best among negative rewards
    least = min((value for cut, row in paid if not cut for value in row), default=math.inf)
    rows = [[min(value, least) for value in row] if cut else row for cut, row in paid if row]
    if not rows:
        return {}
    totals = np.array([value for row in rows for value in row])
    figures = {"reward_mean": float(totals.mean()), "reward_std": float(totals.std())}
    if len(rows) > 1:  # answers to one prompt are alike: the prompts are the sample
        excess = np.array([sum(row) - len(row) * totals.mean() for row in rows])
        figures["reward_se"] = float(np.sqrt((excess**2).sum() * len(rows) / (len(rows) - 1)) / len(totals))
    return figures


def _all_cut(group: GroupReceipt) -> bool:
    """Whether all members with a reward were cut and count as wrong: no stage has paid them."""
    members = [i for i, reward in enumerate(group.rewards) if reward]
    stages = group.stage_rewards.values()
    return bool(stages) and all(
        group.trajectories[i].status in ("length", "turns") and all(added[i] is None for added in stages)
        for i in members
    )


def stage_figures(groups: Sequence[GroupReceipt]) -> dict[str, float]:
    """Mean and standard deviation over decided completions of what each reward stage added, and its own metrics."""
    figures: dict[str, float] = {}
    for name in dict.fromkeys(name for group in groups for name in group.stage_rewards):
        added = [v for group in groups for v in group.stage_rewards.get(name, ()) if v is not None]
        if added:
            figures |= {f"{name}/mean": float(np.mean(added)), f"{name}/std": float(np.std(added))}
    for name in dict.fromkeys(name for group in groups for name in group.metrics):
        figures[name] = float(np.mean([group.metrics[name] for group in groups if name in group.metrics]))
    return figures


def assurances(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Shares of accepted verdicts by assurance; empty if none was accepted or the verifier does not say."""
    accepted = [v.assurance for v in verdicts if v.outcome == "accepted"]
    return {name: _share(each == name for each in accepted) for name in sorted(set(accepted)) if name}


def _all_accepted(group: GroupReceipt) -> bool:
    outcomes = {v.outcome for v in group.verdicts if v is not None} - {"undecided"}
    return outcomes == {"accepted"}


def _costs(verdicts: Sequence[Verdict]) -> dict[str, float]:
    checked = [v for v in verdicts if not v.cached and v.seconds > 0]
    if not checked:
        return {}
    figures = {
        "queue_seconds": float(np.mean([v.queued_seconds for v in checked])),
        "check_seconds": float(np.mean([v.seconds for v in checked])),
    }
    cpu = [v.cpu_seconds for v in checked if v.cpu_seconds is not None]
    return {**figures, "check_cpu_seconds": float(np.mean(cpu))} if cpu else figures


@dataclass(frozen=True, slots=True)
class Undecided:
    """What stayed undecided in a group of ``size`` trajectories: how many, and the reasons of undecided verdicts.

    ``unrewarded`` of those open failed nowhere, and no reward stage gave them a value.

    >>> Undecided(4, 1, ("crashed",)).open
    1
    """

    size: int
    open: int
    reasons: tuple[str, ...]
    unrewarded: int = 0


def undecided_of(group: GroupReceipt) -> Undecided:
    """What stayed undecided in a group."""
    reasons = tuple(v.reason for v in group.verdicts if v is not None and v.outcome == "undecided")
    without = sum(reward is None for reward in group.rewards)
    return Undecided(len(group.rewards), without, reasons, without - len(reasons))


def undecided_share(groups: Sequence[GroupReceipt]) -> float:
    """Share of trajectories whose reward is None."""
    return _share(reward is None for group in groups for reward in group.rewards)


def tokens(groups: Sequence[GroupReceipt]) -> int:
    """Number of sampled tokens in a batch."""
    return sum(trajectory.sampled for group in groups for trajectory in group.trajectories)


def prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """``values`` with ``prefix/`` before each name."""
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _share(flags: Iterable[bool]) -> float:
    found = [bool(flag) for flag in flags]
    return sum(found) / max(len(found), 1)
