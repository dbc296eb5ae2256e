"""Unchanged use of reward functions that were written for TRL."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rlpost.data.text import shown
from rlpost.errors import UserError
from rlpost.trajectory import Group, Trajectory
from rlpost.types import Reward, RewardOutput, SpanReward
from rlpost_rewards.combine import add

_OF_TRL = ("prompt", "completion", "completion_ids")
"""Columns that TRL does not pass either."""


@dataclass(frozen=True, slots=True)
class TrainerState:
    """What a reward function may ask of TRL's ``trainer_state``.

    Attributes:
        global_step: updates that the policy has seen when it wrote these completions.
        max_steps: ``run.steps``; 0 outside a run.
    """

    global_step: int
    max_steps: int


class TrlReward:
    """Adds ``weight · f(prompts, completions, **columns)``, one span over the whole trajectory.

    The function is called once per group with parallel lists, by keyword: ``prompts`` and ``completions`` (texts, or
    message lists where the prompt is a chat), ``completion_ids``, and every further column of the data set; arguments
    it does not take are left out. As in TRL it may also take ``trainer_state`` (`TrainerState`), ``log_metric(name,
    value)``, whose mean appears as ``reward/<stage>/<name>``, and ``log_extra(column, values)``, whose values go into
    the transcript. What can be awaited is, for all groups that a scoring worker has at the same time, in one event loop
    that lives as long as the process: clients and semaphores made at the first call are there at the next.

    A ``None`` in its answer means "does not apply": the completion keeps the reward of other stages. A completion that
    no stage rewards stays undecided and never counts as 0.

    Args:
        function: reward function with the signature of TRL's ``reward_funcs``; it may be a coroutine function.
        weight: factor on its values.
        floor: the least value that it gives, before the weight; a truncated answer that counts as wrong gets no more.
            None: 0, or what the worst finished answer of the group gets if that is less.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, function: Callable[..., Any], weight: float = 1.0, floor: float | None = None):
        self.function, self.weight = function, weight
        self.floor = None if floor is None else weight * floor
        self.name = _name(function)
        self.max_steps = 0
        """Steps of the run, for ``trainer_state``; the scorer sets it."""
        # whether a function waits shows in what it returns: a decorated one may hide that it is a coroutine function
        self.concurrent = True
        """See `rlpost.protocols.ConcurrentRewardStage`."""

    def __call__(self, group: Group) -> Sequence[Reward | None] | RewardOutput:
        """See `rlpost.protocols.RewardStage`.

        Raises:
            UserError: if the function returns the wrong number or kind of values, or needs a missing column.
        """
        [found] = self.answers([group])
        if isinstance(found, Exception):
            raise found
        return found

    def answers(self, groups: Sequence[Group]) -> list[Any]:
        """See `rlpost.protocols.ConcurrentRewardStage`."""
        calls = [_Call(self, group) for group in groups]
        results = [call.begun() for call in calls]
        waiting = [result for result in results if inspect.isawaitable(result)]
        if waiting:
            ready = iter(asyncio.run_coroutine_threadsafe(_all(waiting), _loop()).result())
            results = [next(ready) if inspect.isawaitable(result) else result for result in results]
        return [call.ended(result) for call, result in zip(calls, results, strict=True)]


class _Call:
    """A call of the function for one group, and what it notes meanwhile."""

    def __init__(self, stage: TrlReward, group: Group):
        self.stage, self.group = stage, group
        self.members = [i for i, reward in enumerate(group.rewards) if reward is not None]
        self.metrics: dict[str, list[float]] = {}
        self.extras: dict[str, list[Any]] = {}

    def begun(self) -> Any:
        """What the function returns, an awaitable perhaps, or the exception that it raises."""
        if not self.members:
            return []
        try:
            return self.stage.function(**_accepted(self.stage.function, self._arguments()))
        except Exception as error:
            return error
        except SystemExit as error:
            return _ended(error)

    def ended(self, answer: Any) -> Sequence[Reward | None] | RewardOutput | Exception:
        """The rewards of the group from the function's answer, or the exception."""
        if isinstance(answer, Exception):
            return answer
        try:
            values = _values(answer, len(self.members), self.stage.name)
        except Exception as error:  # also of a generator, which runs only now
            return error
        result: list[Reward | None] = list(self.group.rewards)
        for member, value in zip(self.members, values, strict=True):
            reward = result[member]
            if value is not None and reward is not None:
                size = self.group.trajectories[member].length
                result[member] = add(reward, SpanReward(0, size, self.stage.weight * value))
        if not self.metrics and not self.extras:
            return result
        return RewardOutput(result, {name: math.fsum(v) / len(v) for name, v in self.metrics.items()}, self.extras)

    def log_metric(self, name: str, value: float) -> None:
        """TRL's argument of this name."""
        self.metrics.setdefault(str(name), []).append(float(value))

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """TRL's argument of this name.

        Raises:
            UserError: for another number of values than there are completions.
        """
        found = list(values)
        if len(found) != len(self.members):
            raise UserError(
                f"reward {self.stage.name!r}: log_extra({column!r}) got {len(found)} values for {len(self.members)} "
                "completions; one each is needed"
            )
        row: list[Any] = [None] * len(self.group.trajectories)
        for member, value in zip(self.members, found, strict=True):
            row[member] = value
        self.extras[str(column)] = row

    def _arguments(self) -> dict[str, Any]:
        prompt, chosen = self.group.prompt, [self.group.trajectories[i] for i in self.members]
        count = len(chosen)
        arguments: dict[str, Any] = {
            key: _each(value, count) for key, value in prompt.columns.items() if key not in _OF_TRL
        }
        if prompt.messages is None:
            arguments["prompts"], arguments["completions"] = [prompt.text] * count, [one.text for one in chosen]
        else:
            arguments["prompts"] = [[message.as_dict() for message in prompt.messages] for _ in chosen]
            arguments["completions"] = [_messages(one) for one in chosen]
        arguments["completion_ids"] = [one.token_ids[one.prompt_tokens :].tolist() for one in chosen]
        versions = [span[0] for one in chosen for span in one.versions]
        arguments["trainer_state"] = TrainerState(min(versions, default=0), self.stage.max_steps)
        arguments["log_metric"], arguments["log_extra"] = self.log_metric, self.log_extra
        return arguments


def _each(value: Any, count: int) -> list[Any]:
    """The value of a column for each completion; a list or mapping that a function changes is its own."""
    changes: bool = isinstance(value, (list, dict))
    return [copy.copy(value) for _ in range(count)] if changes else [value] * count


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, which runs in a thread of its own."""
    loop = asyncio.new_event_loop()

    def run() -> None:
        while True:
            # a task that calls exit ends run_forever, and whoever waits for another would wait for ever
            with contextlib.suppress(SystemExit):
                loop.run_forever()

    threading.Thread(target=run, name="reward functions", daemon=True).start()
    return loop


async def _all(waiting: Sequence[Any]) -> list[Any]:
    """Results or exceptions, in order."""
    return await asyncio.gather(*map(_awaited, waiting))


async def _awaited(waiting: Any) -> Any:
    try:
        return await waiting
    except Exception as error:
        return error
    except (SystemExit, asyncio.CancelledError) as error:
        return _ended(error)


def _ended(error: BaseException) -> Exception:
    """An exception for one that would end the worker, or pass those that catch exceptions."""
    return RuntimeError(f"{type(error).__name__}: {error}".rstrip(": ")).with_traceback(error.__traceback__)


def _values(answer: Any, count: int, name: str) -> list[float | None]:
    """The answer of a function as numbers, None where it does not apply.

    Raises:
        UserError: for anything but one number or None for each completion, in order.
    """
    who = f"reward {name!r} answered {shown(answer)}"
    # iterating over a mapping gives its keys, over a text its letters, and a set has no order
    if isinstance(answer, (str, bytes, Mapping, AbstractSet)) or not isinstance(answer, Iterable):
        raise UserError(f"{who}; a list with one number or None per completion is needed")
    try:
        values = list(cast("Iterable[Any]", answer))
    except TypeError:  # an array without a dimension
        raise UserError(f"{who}; a list with one number or None per completion is needed") from None
    if len(values) != count:
        raise UserError(f"reward {name!r} answered {len(values)} values for {count} completions; one each is needed")
    return [None if _is_missing(value) else _number(value, name) for value in values]


def _is_missing(value: Any) -> bool:
    """None, and what stands for it in masked arrays (whose number is 0) and in tables of pandas."""
    return value is None or value is np.ma.masked or type(value).__name__ == "NAType"


def _number(value: Any, name: str) -> float | None:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        number = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        hint = ""
        if isinstance(value, Mapping):
            key = next(iter(cast("Mapping[str, Any]", value)), "score")
            hint = f" (of a mapping, return the value itself, such as its {key!r})"
        raise UserError(
            f"reward {name!r} answered {shown(cast('object', value))}; numbers or None are needed{hint}"
        ) from None
    # TRL writes "does not apply" as NaN once None has been through a tensor
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise UserError(f"reward {name!r} answered {shown(value)}; finite numbers or None are needed")
    return number


def _messages(trajectory: Trajectory) -> list[dict[str, str]]:
    """What follows the prompt as chat messages, the environment's included."""
    roles = {"policy": "assistant", "environment": "user"}
    return [{"role": roles[one.origin], "content": one.text} for one in trajectory.segments if one.origin in roles]


def _accepted(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return arguments
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    missing = [name for name in required if name not in arguments]
    if missing:
        columns = ", ".join(name for name in arguments if name not in ("trainer_state", "log_metric", "log_extra"))
        raise UserError(f"reward {_name(function)!r} wants {missing[0]!r}, which the data has not; there are {columns}")
    return {name: value for name, value in arguments.items() if name in parameters}


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    return getattr(function, "__name__", type(function).__name__)
