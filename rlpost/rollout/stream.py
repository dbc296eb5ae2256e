"""Drive an engine: submit requests, and yield each request's completions as soon as all of them are complete."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rlpost.protocols import GenerateRequest, RolloutEngine, SamplingSettings
from rlpost.types import Completion


def stream(
    engine: RolloutEngine,
    requests: Sequence[GenerateRequest],
    settings: SamplingSettings,
    deadline_s: float | None = None,
) -> Iterator[tuple[int, list[Completion]]]:
    """Sample, and yield each request's completions as soon as all of them are complete.

    Completions that are unfinished at the deadline are aborted and yielded with finish reason ``abort``.

    Args:
        engine: an engine in this process.
        requests: prompts with their group sizes and seeds.
        settings: sampling settings.
        deadline_s: seconds from now; None for no limit.

    Yields:
        Position of a request, and its ``n`` completions by index.
    """
    places = {number: place for place, number in enumerate(engine.submit(requests, settings))}
    found: dict[int, dict[int, Completion]] = {place: {} for place in range(len(requests))}
    end = None if deadline_s is None else time.monotonic() + deadline_s
    late: list[tuple[int, Completion]] = []

    def complete(place: int) -> tuple[int, list[Completion]]:
        members = found.pop(place)
        return place, [members[index] for index in range(requests[place].n)]

    try:
        while found and (end is None or time.monotonic() <= end):
            for number, completion in engine.step():
                place = places.get(number)
                if place not in found:
                    continue
                found[place][completion.index] = completion
                if len(found[place]) == requests[place].n:
                    yield complete(place)
    finally:  # also if the caller stops iterating early
        if found:
            late = engine.abort([number for number, place in places.items() if place in found])
    for number, completion in late:
        found[places[number]][completion.index] = completion
    for place in list(found):
        yield complete(place)


def generate(
    engine: RolloutEngine,
    requests: Sequence[GenerateRequest],
    settings: SamplingSettings,
    deadline_s: float | None = None,
) -> list[Completion]:
    """All completions in request order; see `stream`."""
    found = dict(stream(engine, requests, settings, deadline_s))
    return [completion for place in range(len(requests)) for completion in found[place]]
