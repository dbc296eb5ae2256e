"""Is a batch made of the groups it should be made of, and did every reward stage pay?

Derived from what the scorer gave, without `rlpost.algorithms`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from rlpost.config.schema import AlgorithmSection
from rlpost.errors import SelfCheckError
from rlpost.trajectory import BatchReceipt, GroupReceipt


def chosen(groups: Sequence[GroupReceipt], algorithm: AlgorithmSection, most: int | None) -> list[int]:
    """Numbers of the groups that are to be trained on: the first ``most`` (None: all) that the filter lets pass."""
    return [number for number, group in enumerate(groups) if _passes(group, algorithm.filter)][:most]


def _passes(group: GroupReceipt, rule: str) -> bool:
    known = [(v, r) for v, r in zip(group.verdicts, group.rewards, strict=True) if r is not None]
    if rule == "off":
        return bool(known)
    paid = [[(s.stage, s.index, s.value) for s in r if s.channel == "reward"] for _, r in known]
    if rule == "shaped":
        return any(one != paid[0] for one in paid)
    if all(verdict is not None for verdict, _ in known):
        return len({verdict.outcome for verdict, _ in known if verdict is not None}) > 1
    return len({sum(value for _, _, value in one) for one in paid}) > 1


def check_groups(
    groups: Sequence[GroupReceipt], batch: BatchReceipt, algorithm: AlgorithmSection, most: int, masks: bool
) -> None:
    """Compare the groups of a batch with those that it should have.

    Args:
        groups: scored groups of the step.
        batch: what was made of them.
        algorithm: the filter.
        most: ``rollout.prompts_per_step``.
        masks: ``scoring.truncated: mask``, which takes what was cut out of the loss.

    Raises:
        SelfCheckError: for a group with a reward and sampled tokens that is left out, or one that is in and should not
            be.
    """
    places = {id(group.tokens): number for number, group in enumerate(groups)}
    found = {places.get(id(sample.tokens), -1) for sample in batch.samples}
    wanted = set(chosen(groups, algorithm, most))
    lost = [number for number in sorted(wanted - found) if _trainable(groups[number], masks)]
    extra = sorted(found - wanted - {-1})
    for number, said in [(n, "is left out") for n in lost] + [(n, "is trained on") for n in extra]:
        raise SelfCheckError(
            f"credit: the group of prompt {groups[number].prompt.id!r} {said}, and by its rewards and algorithm.filter "
            f"{algorithm.filter} it should {'be' if said == 'is left out' else 'not be'}; do not train on"
        )


def _trainable(group: GroupReceipt, masks: bool) -> bool:
    """Whether a group has members that no setting takes out: decided, with tokens, and not cut where that masks."""
    return any(
        reward is not None and one.sampled and not (masks and one.status in ("length", "turns"))
        for one, reward in zip(group.trajectories, group.rewards, strict=True)
    )


def check_stages(groups: Sequence[GroupReceipt], names: Collection[str], rejects: bool) -> None:
    """Verify that every reward stage has paid, and that nothing else has.

    Args:
        groups: scored groups that are trained on.
        names: what the configured stages are logged under.
        rejects: ``scoring.truncated: reject``, which sets what was cut to 0 whatever stages have paid.

    Raises:
        SelfCheckError: for a stage that did not run, or rewards that are not the sum of what the stages added.
    """
    for group in groups:
        if set(group.stage_rewards) != set(names):
            raise SelfCheckError(
                f"scoring: prompt {group.prompt.id!r} was rewarded by the stages {sorted(group.stage_rewards)}, and "
                f"configured are {sorted(names)}; do not train on"
            )
        for one, reward in zip(group.trajectories, group.rewards, strict=True):
            added = [group.stage_rewards[name][one.index] for name in names]
            if reward is None or None in added or (rejects and one.status in ("length", "turns")):
                continue
            total = math.fsum(span.value for span in reward if span.channel == "reward")
            paid = math.fsum(value for value in added if value is not None)
            if not math.isclose(total, paid, rel_tol=1e-6, abs_tol=1e-6 * max(1.0, *(abs(v or 0.0) for v in added))):
                raise SelfCheckError(
                    f"scoring: answer {one.index} to prompt {group.prompt.id!r} has the reward {total:.6g}, and its "
                    f"stages paid {paid:.6g}; do not train on"
                )
