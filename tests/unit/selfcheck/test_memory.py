"""Series of memory use in MiB that are leaks, and others that are not."""

from __future__ import annotations

import pytest

from rlpost.errors import LeakError
from rlpost.selfcheck.memory import MemoryWatch, growth


def watch(values: list[float], window: int = 20) -> MemoryWatch:
    found = MemoryWatch(window)
    for value in values:
        found.note({"rollout0": 1000.0, "scoring1": value})
    return found


def test_a_leak_is_named_with_its_actor_and_remedy() -> None:
    with pytest.raises(LeakError) as caught:
        watch([600.0 + 40 * step for step in range(25)]).check(0.5)
    text = str(caught.value)
    assert text.startswith("memory: scoring1 has grown by ")
    assert "over the last 20 steps" in text
    assert "selfcheck.memory_growth=null" in text


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([600.0 + 40 * step for step in range(24)], id="too early to say"),
        pytest.param([100.0 * step for step in range(5)] + [900.0] * 20, id="start"),
        pytest.param([600.0] * 15 + [1600.0] * 10, id="one bigger batch"),
        pytest.param([600.0, 640.0] * 12 + [600.0], id="to and fro"),
        pytest.param([60.0 + 5 * step for step in range(25)], id="small in all"),
        pytest.param([9000.0 + 40 * step for step in range(25)], id="small against what it was"),
    ],
)
def test_growth_that_is_not_a_leak_passes(values: list[float]) -> None:
    watch(values).check(0.5)


def test_a_replaced_actor_starts_a_new_series() -> None:
    found = watch([600.0 + 40 * step for step in range(25)])
    found.forget("scoring1")
    found.check(0.5)


def test_growth_takes_levels_not_spikes() -> None:
    before, grown, steady = growth([100, 100, 900, 100, 100, 100, 100, 100, 900, 100])
    assert (before, grown) == (100, 400)
    assert steady == pytest.approx(2 / 9)
