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


def scale(reward: Reward, factor: float) -> Reward:
    """Multiply every ``reward``-channel value; ``advantage`` spans stay as they are.

    >>> scale((SpanReward(0, 4, 1.0),), 0.25)[0].value
    0.25
    """
    return tuple(
        dataclasses.replace(span, value=span.value * factor) if span.channel == "reward" else span for span in reward
    )
