"""Building verifiers and reward stages from the names in a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from rlpost.config.schema import EnvironmentSection, RewardSpec, RunConfig, ScoringSection
from rlpost.decoding import AnswerTokens, DecodingConstraint
from rlpost.errors import ConfigError, RlpostError, UserError, describe_error
from rlpost.plugins import registry, usercode
from rlpost.protocols import Environment, RewardStage, Verifier

NEEDS = ("rollout_logprobs", "learner_logprobs", "offsets")
"""What a reward stage can ask for in `rlpost.protocols.RewardStage.needs`."""


def build_stage(spec: RewardSpec) -> RewardStage:
    """A stage of the reward pipeline: a class, or a plain function with the signature of TRL's reward functions.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    target: Any = registry.resolve("rewards", spec.name)
    who = f"scoring.rewards: {spec.name!r}"
    if isinstance(target, type):
        return cast("RewardStage", instantiate(target, (), spec.arguments, who))
    return instantiate(registry.resolve("rewards", "trl"), (target,), spec.arguments, who)


def build_verifier(section: ScoringSection) -> Verifier | None:
    """The configured verifier, or None.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    if section.verifier is None:
        return None
    return instantiate(*_verifier_call(section, section.verifier))


def check_verifier_arguments(section: ScoringSection) -> None:
    """Raise UserError if the verifier's name is unknown or its arguments do not fit; nothing is made."""
    if section.verifier is not None:
        _check_arguments(*_verifier_call(section, section.verifier))


def _verifier_call(section: ScoringSection, name: str) -> tuple[Any, tuple[Any, ...], dict[str, Any], str]:
    """What `instantiate` takes."""
    target = registry.resolve("verifiers", name)
    if not callable(target):
        raise UserError(f"scoring.verifier: {name!r} is {target!r}; a class is needed")
    arguments: dict[str, Any] = dict(section.verifier_args)
    if "timeout_s" in _parameters(target):
        arguments.setdefault("timeout_s", section.timeout_s)
    return target, (), arguments, f"scoring.verifier_args: {name!r}"


def build_environment(section: EnvironmentSection) -> Environment:
    """One environment, for one trajectory.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    target = registry.resolve("environments", section.name)
    return instantiate(target, (), section.args, f"environment.args: {section.name!r}")


def build_constraint(config: RunConfig, tokens: AnswerTokens) -> DecodingConstraint:
    """The decoding constraint that ``rollout.constraint`` names.

    Arguments that are not given and that the verifier has by the same name, such as ``catalog`` and ``items``, are the
    verifier's: a constraint that allows what the verifier does not know would be a mistake.

    Args:
        config: a configuration with a constraint.
        tokens: the policy's tokenizer.

    Raises:
        UserError: if the name is unknown or the arguments do not fit.
    """
    spec = config.rollout.constraint
    assert spec is not None
    target = registry.resolve("constraints", spec.name)
    if not callable(target):
        raise UserError(f"rollout.constraint: {spec.name!r} is {target!r}; a class is needed")
    shared = config.scoring.verifier_args if config.scoring.verifier is not None else {}
    known = {name: value for name, value in shared.items() if name in _parameters(target)}
    return instantiate(target, (tokens,), known | spec.arguments, f"rollout.constraint: {spec.name!r}")


def stage_needs(stage: RewardStage) -> tuple[str, ...]:
    """What a reward stage reads besides texts; ``engine_logprobs`` is an old name of ``rollout_logprobs``."""
    return tuple("rollout_logprobs" if need == "engine_logprobs" else need for need in getattr(stage, "needs", ()))


def reward_needs(config: RunConfig) -> dict[str, str]:
    """The needs of all reward stages, each with the name of the first that has it.

    Building the stages also reports misspelt names.

    Raises:
        UserError: if a name is unknown, the arguments do not fit, or a stage needs what there is not.
    """
    found: dict[str, str] = {}
    for spec in config.scoring.rewards:
        for need in stage_needs(build_stage(spec)):
            if need not in NEEDS:
                raise UserError(
                    f"scoring.rewards: {spec.name!r} needs {need!r}, which nobody gives; there are {', '.join(NEEDS)}"
                )
            found.setdefault(need, spec.name)
    return found


def with_logprobs(config: RunConfig, needs: Mapping[str, str]) -> RunConfig:
    """The configuration, with ``rollout.logprobs`` set to ``always`` if a reward stage reads the engine's.

    Args:
        config: the run configuration.
        needs: the needs of its reward stages; see `reward_needs`.

    Raises:
        ConfigError: if ``rollout.logprobs`` is ``never``.
    """
    reader = needs.get("rollout_logprobs")
    if reader is None:
        return config
    if config.rollout.logprobs == "never":
        raise ConfigError(
            f"rollout.logprobs: never, but the reward {reader!r} reads the engine's log-probabilities; set it auto"
        )
    rollout = config.rollout.model_copy(update={"logprobs": "always"})
    return config.model_copy(update={"rollout": rollout})


def instantiate(target: Any, given: tuple[Any, ...], arguments: Mapping[str, Any], who: str) -> Any:
    """Call a class or function of the user's with the arguments of a configuration.

    Args:
        target: the class or function.
        given: positional arguments.
        arguments: keyword arguments from the configuration.
        who: configuration key and name in messages.

    Raises:
        UserError: if the arguments do not fit, or the call fails, with the file and line of the user's code.
    """
    _check_arguments(target, given, arguments, who)
    try:
        return target(*given, **arguments)
    except RlpostError:
        raise
    except Exception as error:
        at = usercode.at_place(error)
        raise UserError(
            f"{who} cannot be made with {dict(arguments)}: fails{at} ({describe_error(error)});"
            " mend it, or correct the arguments"
        ) from error


def _check_arguments(target: Any, given: tuple[Any, ...], arguments: Mapping[str, Any], who: str) -> None:
    try:
        inspect.signature(target).bind(*given, **arguments)
    except TypeError as error:
        raise UserError(f"{who} cannot take {dict(arguments)} ({error}); correct the arguments") from None
    except ValueError:  # some classes written in C have no signature
        pass


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except ValueError:
        return {}
