"""Every few steps: what separates an engine's log-probabilities from the learner's, by cause.

Three causes look alike in the total. *Numerics*: other kernels, another dtype, or other weights than those reported.
*Staleness*: the learner has moved since the version that the engine serves; intended in an asynchronous loop, a lost
update in a synchronous one. *Stale cache*: the engine reads keys and values that an older policy wrote.

The engine answers pinned prompts twice, with its prefix cache as it is and with it emptied, and the learner scores
both. The learner also scores again what it scored when it last published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlpost.algorithms.diagnostics import mismatch
from rlpost.errors import SelfCheckError
from rlpost.selfcheck.prefix_cache import reported_logprobs, stale_cache
from rlpost.trajectory import Trajectory

_CAUSES = {
    "numerics": "the engine computes with other weights than it reports (a stale packed copy); try "
    "rollout.packed_weights=false, do not train on",
    "staleness": "the learner has moved since it last published; an update did not reach the engines",
    "stale_cache": "the engine's prefix cache holds keys and values of an older policy; it was not dropped at the sync",
}
"""What each part means and what to do about it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Greedy completions with the engine's log-probabilities, and the ``learner``'s current ones.

    >>> from rlpost.trajectory import one_turn
    >>> Scored([one_turn((1,), (5,), logprobs=(-1.0,))], [np.array([-1.5])]).learner[0].tolist()
    [-1.5]
    """

    completions: Sequence[Trajectory]
    learner: Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Published:
    """The learner's log-probabilities ``[T]`` of recorded completions: at the last publish, and now.

    >>> Published([np.array([-1.0])], [np.array([-1.25])]).now[0].tolist()
    [-1.25]
    """

    then: Sequence[np.ndarray]
    now: Sequence[np.ndarray]


def check_parity(
    as_is: Scored, fresh: Scored, published: Published, tolerance: float, synchronous: bool, engine: int = 0
) -> dict[str, float]:
    """Split the difference between an engine and the learner by cause, and compare each part with a limit.

    With E the engine as it is, F the engine with an emptied cache, L the learner now and P the learner when it last
    published, all in nats per token: ``total`` = mean |E - L|, ``stale_cache`` = mean |E - F|, ``staleness`` =
    mean |P - L|, ``numerics`` = mean |F - L| less ``staleness``, at least 0. The parts need not add up to the total:
    differences of either sign cancel.

    Args:
        as_is: completions of an engine with its cache as it is.
        fresh: completions of the same engine and prompts after its cache was emptied.
        published: learner log-probabilities of completions recorded when the served version was published.
        tolerance: largest allowed mean difference in nats per token, see `rlpost.selfcheck.canary.tolerance`.
        synchronous: whether the engine should serve the learner's current weights; otherwise neither staleness nor the
            total, which contains it, has a limit.
        engine: number of the engine, for the message.

    Returns:
        Metrics ``parity/total``, and ``parity/…`` for each part.

    Raises:
        SelfCheckError: if a part is above the tolerance, or the figures cannot be compared.
    """
    try:
        staleness = mismatch(_plain(published.then), _plain(published.now)).mean
        parts = {
            "numerics": _excess(mismatch(reported_logprobs(fresh.completions), _plain(fresh.learner)).mean, staleness),
            "staleness": staleness,
            "stale_cache": stale_cache(as_is.completions, fresh.completions),
        }
        total = mismatch(reported_logprobs(as_is.completions), _plain(as_is.learner)).mean
    except ValueError as error:
        raise SelfCheckError(f"parity: engine {engine} and learner cannot be compared: {error}") from None
    limited = {**parts, "total": total} if synchronous else {k: v for k, v in parts.items() if k != "staleness"}
    if not all(value <= tolerance for value in limited.values()):
        largest = max((name for name in _CAUSES if name in limited), key=lambda name: parts[name])
        figures = ", ".join(f"{name} {value:.4g}" for name, value in parts.items())
        raise SelfCheckError(
            f"parity: engine {engine} and learner differ by {total:.4g} nats per token ({figures}; limit {tolerance:g}"
            f"): mostly {largest}: {_CAUSES[largest]}"
        )
    return {"parity/total": total, **{f"parity/{name}": value for name, value in parts.items()}}


def check_reference(published: Published, tolerance: float) -> dict[str, float]:
    """Verify that the reference of a KL term gives the same completions the same log-probabilities as at the start.

    A reference that has become the policy makes the KL term zero, and one that drifts pulls the policy elsewhere; the
    loss shows neither.

    Args:
        published: the reference's log-probabilities at the start of the run, and now.
        tolerance: largest allowed mean difference, in nats per token.

    Returns:
        Metric ``parity/reference``, the mean difference.

    Raises:
        SelfCheckError: above the tolerance.
    """
    moved = mismatch(_plain(published.then), _plain(published.now)).mean
    if not moved <= tolerance:
        raise SelfCheckError(
            f"parity: the reference policy has moved by {moved:.4g} nats per token since the start (limit "
            f"{tolerance:g}): the KL term is not against the starting model; set algorithm.kl.coef: 0, or another "
            "learner.zero_stage"
        )
    return {"parity/reference": moved}


def _excess(value: float, explained: float) -> float:
    """The part of a difference that staleness does not explain; an infinite difference stays infinite."""
    return max(0.0, value - explained) if np.isfinite(value) else value


def _plain(values: Sequence[np.ndarray]) -> list[list[float]]:
    return [[float(x) for x in row] for row in values]
