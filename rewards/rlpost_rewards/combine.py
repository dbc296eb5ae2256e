"""How a stage of the reward pipeline changes the reward that a completion has so far."""

from __future__ import annotations

import dataclasses

from rlpost.types import Reward, SpanReward


def add(reward: Reward, *spans: SpanReward) -> Reward:
    """Append spans; a span with the same place, index, channel and stage as one already there is added to it.

    >>> add((SpanReward(0, 4, 1.0),), SpanReward(0, 4, 0.5))[0].value
    1.5
    """
    result = list(reward)
    for span in spans:
        place = (span.start, span.stop, span.index, span.channel, span.stage)
        for i, other in enumerate(result):
            if (other.start, other.stop, other.index, other.channel, other.stage) == place:
                result[i] = dataclasses.replace(other, value=other.value + span.value)
                break
        else:
            result.append(span)
    return tuple(result)


def reduce(reward: Reward, factor: float) -> Reward:
    r"""Lower every ``reward``-channel value by the share 1 - f of its magnitude: f·v for v ≥ 0, (2 - f)·v below.

    A negative value falls too, where multiplying would raise it. ``advantage`` spans stay as they are.

    Args:
        reward: the spans.
        factor: f in [0, 1].

    >>> [span.value for span in reduce((SpanReward(0, 4, 1.0), SpanReward(0, 2, -1.0, 1)), 0.75)]
    [0.75, -1.25]
    """
    return tuple(
        dataclasses.replace(span, value=span.value * (factor if span.value >= 0 else 2 - factor))
        if span.channel == "reward"
        else span
        for span in reward
    )
