"""Rules for the section ``algorithm`` and the rewards that go with it: what is refused, and why.

Combinations that compute something other than they say are refused, also where nothing would crash.
"""

from __future__ import annotations

from rlpost.config.schema import RunConfig
from rlpost.errors import ConfigError

DPPO = ("dppo_tv", "dppo_kl")


def check_kl(config: RunConfig) -> None:
    """A KL term pulls the policy back."""
    kl = config.algorithm.kl
    if kl.coef and kl.kind == "k1":
        raise ConfigError(
            f"algorithm.kl.kind: k1 with coef {kl.coef} adds noise and no pull, since the gradient of its expectation "
            "is zero; use k3 or k2"
        )


def check_clip(config: RunConfig) -> None:
    """Limits of the surrogate can act, and the second limit acts on negative advantages alone."""
    algorithm = config.algorithm
    low, high = algorithm.clip
    if algorithm.delta is not None:
        if algorithm.loss != "clipped":
            raise ConfigError(
                f"algorithm.delta: {algorithm.delta} limits the ratio of the loss clipped, and {algorithm.loss} has "
                "limits of its own; remove it"
            )
        if algorithm.delta <= 1 + high:
            raise ConfigError(
                f"algorithm.delta: {algorithm.delta} would also limit positive advantages, before 1 + ε_high = "
                f"{1 + high:g} does; give more than that"
            )
    if algorithm.loss == "dppo_tv" and max(low, high) >= 1:
        raise ConfigError(
            f"algorithm.clip: [{low}, {high}] are distances between probabilities with dppo_tv, and none reaches 1; "
            "give smaller ones, such as 0.2"
        )


def check_ratio(config: RunConfig) -> None:
    """The level of the ratio fits the loss, and the aggregation fits the level."""
    algorithm = config.algorithm
    loss, ratio, aggregate = algorithm.loss, algorithm.ratio, algorithm.aggregate
    if loss in DPPO and ratio != "token":
        raise ConfigError(
            f"algorithm.ratio: {ratio}, but {loss} compares the probabilities of single tokens; use token"
        )
    if loss != "gmpo":
        return
    if ratio == "token":
        raise ConfigError(
            "algorithm.ratio: token, but gmpo takes the geometric mean over a sequence or a span; use sequence (as the "
            "recipe gmpo does) or span"
        )
    if aggregate != ratio:
        raise ConfigError(
            f"algorithm.aggregate: {aggregate} would count the one term of each {ratio} once per token with gmpo; use "
            f"{ratio}"
        )


def check_importance_limits(config: RunConfig) -> None:
    """Weights of tokens on which engine and learner agree are kept."""
    algorithm, settings = config.algorithm, config.algorithm.importance
    if settings.low is not None and settings.low >= settings.cap:
        raise ConfigError(
            f"algorithm.importance.low: {settings.low} is not below cap {settings.cap}; give a smaller one"
        )
    if not (settings.low or 0.0) <= 1 <= settings.cap:
        changes = "leave out" if settings.mode == "mask" else "change"
        raise ConfigError(
            f"algorithm.importance.low: and cap, {settings.low or 0.0:g} to {settings.cap:g}, {changes} weight 1, that "
            "is, every token on which engine and learner agree; put 1 between them"
        )
    if config.importance_cap is None and (settings.low is not None or settings.level != "token"):
        raise ConfigError(
            f"algorithm.importance.mode: {settings.mode} (dtype {config.model.dtype}) weighs nothing, but level "
            f"{settings.level} and low {settings.low} are given; set mode truncate or mask, or remove them"
        )
    if algorithm.loss not in DPPO:
        return
    if settings.mode in ("off", "mask") or settings.level != "token" or settings.low is not None:
        raise ConfigError(
            f"algorithm.importance.mode: {settings.mode} (level {settings.level}, low {settings.low}), but "
            f"{algorithm.loss} weighs and masks tokens against the engine's policy itself; use truncate, level token, "
            "no low"
        )


def check_advantage(config: RunConfig) -> None:
    """MaxRL divides by the mean alone, and has no negative rewards to divide."""
    algorithm = config.algorithm
    if algorithm.advantage != "maxrl":
        return
    if algorithm.std is not False or algorithm.baseline != "mean":
        raise ConfigError(
            f"algorithm.advantage: maxrl subtracts the group's mean and divides by it (std {algorithm.std}, baseline "
            f"{algorithm.baseline}); set std false and baseline mean, or use recipe maxrl"
        )
    for spec in config.scoring.rewards:
        if spec.name == "overlong":
            raise ConfigError(
                "algorithm.advantage: maxrl needs rewards of 0 or more, and the reward overlong is negative; remove one"
            )


def check_spans_per_completion(config: RunConfig) -> None:
    """The divisor of spans belongs to the mean over spans."""
    algorithm = config.algorithm
    if algorithm.spans_per_completion is not None and algorithm.aggregate != "span":
        raise ConfigError(
            f"algorithm.spans_per_completion: {algorithm.spans_per_completion} is the divisor of aggregate span "
            f"(aggregate {algorithm.aggregate}); remove it, or use span"
        )


def check_overlong(config: RunConfig) -> None:
    """The punishment is of single answers, and its limit is one that answers can reach."""
    for spec in config.scoring.rewards:
        if spec.name != "overlong":
            continue
        if config.environment is not None:
            raise ConfigError(
                "scoring.rewards: overlong measures single answers, and environment gives trajectories several; remove "
                "one"
            )
        limit = spec.arguments.get("max_tokens")
        if isinstance(limit, int) and limit > config.rollout.max_tokens:
            raise ConfigError(
                f"scoring.rewards: overlong with max_tokens {limit}, but no answer is longer than rollout.max_tokens "
                f"{config.rollout.max_tokens}; give that"
            )


def check_subgoals(config: RunConfig) -> None:
    """The verifier says which steps are proved, and failed answers have blame to be exempt from."""
    names, scoring = [spec.name for spec in config.scoring.rewards], config.scoring
    if "subgoals" not in names:
        return
    given = scoring.verifier_args.get("subgoals")
    if scoring.verifier is None or (scoring.verifier.startswith("lean.") and given is not True):
        raise ConfigError(
            f"scoring.verifier_args.subgoals: {given!r} (verifier {scoring.verifier}), but the reward subgoals asks "
            "which steps of a proof are proved; use a lean verifier with subgoals: true, or remove the reward"
        )
    if config.algorithm.baseline == "none" and set(names) <= {"outcome", "subgoals"}:
        raise ConfigError(
            "algorithm.baseline: none gives failed proofs the advantage 0, so the reward subgoals has no blame to "
            "take; use mean or leave_one_out, or remove the reward"
        )
    if names.index("subgoals") == 0:
        raise ConfigError("scoring.rewards: subgoals pays nothing by itself; put outcome before it")
