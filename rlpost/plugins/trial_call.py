"""The rules for a verifier or reward of the user's own, checked by one trial before a run depends on it.

Every failure is a `UserError` of one line that names the plug-in, the user's file and line where there is one, what
happened and what to do.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rlpost.errors import UserError, describe_error
from rlpost.plugins import usercode
from rlpost.protocols import RewardStage, Verifier
from rlpost.trajectory import Group, one_turn
from rlpost.types import Prompt, RewardOutput, SpanReward, Verdict, VerifyItem

_SKIP = "(selfcheck.plugins=false skips this trial)"
_TEXTS = ("", "a short answer")
"""Answers that are harmless for any verifier."""
_MOST_COLUMNS, _LONGEST_COLUMN = 3, 400
"""Limits on the columns that are tried as answers too: one of them may be the right answer, to be accepted."""
_REPEATS = 4
"""Calls in the same order before a verifier is said to mix up its verdicts and not to be random."""


def try_verifier(verifier: Any, name: str, prompt: Prompt) -> tuple[float, str]:
    """Call a verifier on a few harmless answers to a real prompt and check what it returns.

    Args:
        verifier: the verifier, built from its arguments.
        name: value of ``scoring.verifier``.
        prompt: first prompt of the worker's share.

    Returns:
        Wall-clock seconds of the first call, and a note if its verdicts differed from call to call.

    Raises:
        UserError: if a method is missing, it fails, or it returns the wrong number, type or order of verdicts.
    """
    who = f"scoring.verifier {name!r}"
    missing = [verb for verb in ("fingerprint", "verify_batch", "close") if not hasattr(verifier, verb)]
    if missing or not isinstance(verifier, Verifier):
        raise UserError(f"{who} has no {', '.join(missing)}; see rlpost.protocols.Verifier")
    with plugin_errors(who, f"on prompt {prompt.id!r}"):
        if not isinstance(verifier.fingerprint, str) or not verifier.fingerprint:
            raise UserError(f"fingerprint is {verifier.fingerprint!r}; name and version as text are needed")
        items = [VerifyItem(prompt.columns, text) for text in answers(prompt)]
        started = time.perf_counter()
        verdicts = _checked(verifier.verify_batch(items), items)
        seconds = time.perf_counter() - started
        _check_crashes(verdicts)
        note = _check_order(verifier, items, verdicts)
    return seconds, note


def try_stage(stage: RewardStage, name: str, prompt: Prompt, judged: bool) -> float:
    """Call a reward stage on a few harmless answers to a real prompt and check what it returns.

    Args:
        stage: the reward stage, built from its arguments.
        name: its name in ``scoring.rewards``.
        prompt: first prompt of the worker's share.
        judged: whether the answers come with verdicts.

    Returns:
        Wall-clock seconds of the call; 0 for a stage that needs log-probabilities, whose signature alone is checked.

    Raises:
        UserError: if it cannot be called with the columns of the data, fails, or returns anything but rewards.
    """
    who = f"scoring.rewards {name!r}"
    with plugin_errors(who, f"on prompt {prompt.id!r}"):
        _check_signature(stage)
        if set(stage.needs) - {"offsets"}:
            return 0.0
        group = _group(prompt, judged, "offsets" in stage.needs)
        started = time.perf_counter()
        answer = stage(group)
        seconds = time.perf_counter() - started
        if isinstance(answer, RewardOutput):
            _check_figures(answer.metrics)
            answer = answer.rewards
        _check_rewards(answer, group)
    return seconds


@contextmanager
def plugin_errors(who: str, when: str) -> Iterator[None]:
    """Turn an exception of the user's code in the block into one line that says who, where and what."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{who}, tried {when}: {' '.join(str(error).split())} {_SKIP}") from None
    except (Exception, SystemExit) as error:
        at = usercode.at_place(error)
        raise UserError(f"{who} fails{at} when tried {when}: {describe_error(error)}; mend it there {_SKIP}") from error


def _check_figures(figures: Any) -> None:
    if not isinstance(figures, Mapping) or any(not isinstance(v, (int, float)) for v in figures.values()):
        raise UserError(f"its metrics are {short_repr(figures)}; a mapping from names to numbers is needed")


def answers(prompt: Prompt) -> list[str]:
    """Answers that are harmless for any plug-in, short columns of the prompt among them."""
    columns = [str(value) for value in prompt.columns.values() if isinstance(value, (str, int, float))]
    short = [text for text in columns if text and len(text) <= _LONGEST_COLUMN and text not in (prompt.id, prompt.text)]
    return [*_TEXTS, *list(dict.fromkeys(text for text in short if text not in _TEXTS))[-_MOST_COLUMNS:]]


def _checked(answer: Any, items: Sequence[VerifyItem]) -> list[Verdict]:
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        raise UserError(f"verify_batch answered {short_repr(answer)}; a list with one Verdict per item is needed")
    if len(answer) != len(items):
        raise UserError(f"verify_batch answered {len(answer)} verdicts for {len(items)} items; one each is needed")
    for verdict in answer:
        if not isinstance(verdict, Verdict):
            raise UserError(f"verify_batch answered {short_repr(verdict)}; a rlpost.types.Verdict is needed")
        if verdict.outcome not in ("accepted", "rejected", "undecided"):
            raise UserError(f"a verdict has the outcome {verdict.outcome!r}; accepted, rejected or undecided is needed")
        if not isinstance(verdict.reason, str) or not verdict.reason:
            raise UserError(f"a verdict has the reason {verdict.reason!r}; a word from a closed set is needed")
    return list(answer)


def _check_crashes(verdicts: Sequence[Verdict]) -> None:
    if all(verdict.outcome == "undecided" and verdict.reason == "crashed" for verdict in verdicts):
        said = "; ".join(map(str, verdicts[0].evidence.get("messages", ()))) or "no message"
        raise UserError(f"it crashed on each of {len(verdicts)} harmless answers ({said[:300]}); mend it")


def _check_order(verifier: Verifier, items: Sequence[VerifyItem], verdicts: Sequence[Verdict]) -> str:
    """Ask for the same items in another order; each must get the verdict that it had.

    In the other order every item has another place. An item that is undecided in one of the calls is not compared.

    Returns:
        A note if verdicts differ, but do so in the same order too: what is random looks like a wrong order.

    Raises:
        UserError: if verdicts differ between orders, and never in the same order.
    """
    turns = range(1, len(items))
    changed = next((found for turn in turns if (found := _differing(verifier, items, verdicts, turn))), "")
    if not changed:
        return ""
    if not any(_differing(verifier, items, verdicts, 0) for _ in range(_REPEATS)):
        raise UserError(
            f"the same {len(items)} items in another order got other verdicts ({changed}), and in the same order the "
            "same ones; verdicts must follow their items, and depend on nothing else in the batch"
        )
    return f"; the same items got different verdicts ({changed}): it mixes them up, or is not deterministic"


def _differing(verifier: Verifier, items: Sequence[VerifyItem], verdicts: Sequence[Verdict], turn: int) -> str:
    """What the first item gets that gets another verdict in the order that begins with item ``turn``; or nothing."""
    again = _checked(verifier.verify_batch([*items[turn:], *items[:turn]]), items)
    back = [*again[len(items) - turn :], *again[: len(items) - turn]]
    for item, before, after in zip(items, verdicts, back, strict=True):
        both = (before.outcome, before.score), (after.outcome, after.score)
        if both[0] != both[1] and "undecided" not in (before.outcome, after.outcome):
            return f"{short_repr(item.text)} was {_said(before)} and then {_said(after)}"
    return ""


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome} with score {verdict.score:g}"


def _check_signature(stage: Any) -> None:
    """A function as TRL's trainers take it is called by keyword."""
    function = getattr(stage, "function", None)
    if function is None:
        if not callable(stage) or not isinstance(getattr(stage, "needs", None), tuple):
            raise UserError("a class of rewards needs `needs: tuple[str, ...] = ()` and __call__(self, group)")
        return
    if not callable(function):
        raise UserError(f"it is {short_repr(function)}, which cannot be called; a function or a class is needed")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some functions written in C have no signature
        return
    if fixed := [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        raise UserError(f"its parameter {fixed[0]!r} is positional-only; it is called by keyword, remove the `/`")


def _group(prompt: Prompt, judged: bool, offsets: bool) -> Group:
    """A group of two answers to be rewarded, and an undecided one whose reward must stay None."""
    texts = (*_TEXTS, _TEXTS[-1])
    trajectories = tuple(
        one_turn((0,), (0,) * (len(text) + 1), text, offsets=_spans(text) if offsets else None, index=index)
        for index, text in enumerate(texts)
    )
    judgements = (Verdict("rejected", 0.0, "trial"), Verdict("accepted", 1.0, "trial")) if judged else (None, None)
    return Group(prompt, trajectories, (*judgements, Verdict("undecided", None, "trial")), ((), (), None))


def _spans(text: str) -> list[tuple[int, int]]:
    """A token for each character, and an end token."""
    return [*((i, i + 1) for i in range(len(text))), (len(text), len(text))]


def _check_rewards(answer: Any, group: Group) -> None:
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        raise UserError(f"it answered {short_repr(answer)}; a list with one reward per trajectory is needed")
    if len(answer) != len(group.trajectories):
        raise UserError(
            f"it answered {len(answer)} rewards for {len(group.trajectories)} trajectories; one each is needed"
        )
    for reward, before, trajectory in zip(answer, group.rewards, group.trajectories, strict=True):
        if reward is None:
            continue
        if before is None:
            raise UserError("it paid an undecided trajectory; where the reward is None it must stay None")
        if not isinstance(reward, tuple) or not all(isinstance(span, SpanReward) for span in reward):
            raise UserError(f"it answered {short_repr(reward)}; None or a tuple of rlpost.types.SpanReward is needed")
        if outside := [span for span in reward if span.stop > trajectory.length]:
            paid, size = outside[0], trajectory.length
            raise UserError(f"it paid tokens {paid.start} to {paid.stop} of a trajectory of {size}")


def short_repr(value: Any) -> str:
    """Representation of a value in at most 80 characters, for messages."""
    text = (
        repr(dataclasses.asdict(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else repr(value)
    )
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
