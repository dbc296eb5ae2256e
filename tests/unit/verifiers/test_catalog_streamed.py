"""Scores without a table beside those from one: lists, ratings, the adjustment and how far it may be from the best.

Embeddings are given here. Large sizes are measured by scripts/bench_demonstrate.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlpost.errors import DataError, UserError
from rlpost_verifiers.catalog import streamed, vectors
from rlpost_verifiers.catalog.demonstrations import DemonstrationSettings, Remapper, demonstrate
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.remap import adjust, adjust_some, relevance_shares
from rlpost_verifiers.catalog.scores import DenseScores
from rlpost_verifiers.catalog.streamed import StreamedScores
from rlpost_verifiers.catalog.verifier import CatalogVerifier

ITEMS, USERS = 700, 60


def unit(count: int, seed: int, dimension: int = 8) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def both(adjusted: int = 10_000, scale: float = 3.0) -> tuple[StreamedScores, DenseScores]:
    items, users, rng = unit(ITEMS, 0), unit(USERS, 1) * np.float32(scale), np.random.default_rng(2)
    extra = [{int(item): float(rng.random()) for item in rng.integers(0, ITEMS, 4)} for _ in range(USERS)]
    table = users @ items.T
    for row, own in zip(table, extra, strict=True):
        for item, value in own.items():
            row[item] += np.float32(value)
    return StreamedScores(items, users, extra, adjusted), DenseScores(table)


def wanted() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [sorted({int(item) for item in rng.integers(0, 40, rng.integers(0, 4))}) for _ in range(USERS)]


def loss(table: np.ndarray, scale: np.ndarray, bias: np.ndarray, penalty: float) -> float:
    used, shares = relevance_shares(USERS, wanted())
    logits = table[used].astype(np.float64) * scale + bias
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    told = [sum(value * row[item] for item, value in own.items()) for row, own in zip(logs, shares, strict=True)]
    return -float(np.mean(told)) + penalty * float(((scale - 1) ** 2).sum() + (bias**2).sum())


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in both directions, the last ones not full."""
    monkeypatch.setattr(streamed, "_CONVERSATIONS", 16)
    monkeypatch.setattr(streamed, "_ITEMS", 128)


@pytest.mark.parametrize("size", [1, 5, 127, 128, 300, 800])
def test_the_best_items_are_those_of_the_table(size: int) -> None:
    streams, table = both()
    rng = np.random.default_rng(4)
    left_out = [set(rng.integers(0, ITEMS, 30).tolist()) for _ in range(USERS)]
    places = [*range(0, USERS, 2), 3]
    out = [left_out[place] for place in places]
    for adjustment in (None, adjust(table.table, wanted(), 0.01)):
        found, expected = streams.best(places, size, out, adjustment), table.best(places, size, out, adjustment)
        for place, items, others, hidden in zip(places, found, expected, out, strict=True):
            scores = table.table[place] if adjustment is None else adjustment(table.table[place])
            # rounding may exchange two items whose scores differ by less
            assert scores[items] == pytest.approx(scores[others], abs=1e-5)
            assert len(set(items)) == len(items) == min(size, ITEMS - len(hidden))
            assert not hidden & set(items)


def test_equal_scores_keep_the_catalogs_order() -> None:
    items = np.ones((ITEMS, 2), np.float32)
    streams = StreamedScores(items, np.ones((2, 2), np.float32), [{650: 1.0}, {}])
    assert streams.best([0, 1], 4, [{1}, ()]) == [[650, 0, 2, 3], [0, 1, 2, 3]]
    assert streams.best([1], ITEMS, [range(2, ITEMS)]) == [[0, 1]], "what is left out fills no place"
    assert streams.best([], 4, []) == []


def test_ratings() -> None:
    streams, table = both()
    ratings = {3: {0: 2.0, 699: -2.0}, 20: {5: 1.0}}
    places, out = range(USERS), [()] * USERS
    assert streams.reflected(ratings, 0.5).best(places, 20, out) == table.reflected(ratings, 0.5).best(places, 20, out)
    assert streams.best(places, 20, out) == table.best(places, 20, out), "the scores before stay"
    with pytest.raises(DataError, match="rates from -2 to 2"):
        streams.reflected({0: {0: 3.0}}, 0.5)


@pytest.mark.parametrize("penalty", [0.01, 1e-3])
def test_all_items_adjusted_is_the_dense_fit(penalty: float) -> None:
    streams, table = both()
    found, least = streams.fit(range(USERS), wanted(), penalty), adjust(table.table, wanted(), penalty)
    assert found.scale == pytest.approx(least.scale, abs=2e-3)
    assert found.bias == pytest.approx(least.bias, abs=2e-3)
    assert (found.before, found.after) == pytest.approx((least.before, least.after), abs=1e-5)


@pytest.mark.parametrize("penalty", [0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("adjusted", [1, 100, 500])
def test_some_items_adjusted_is_no_further_from_the_best_than_it_says(penalty: float, adjusted: int) -> None:
    streams, table = both(adjusted)
    found = streams.fit(range(USERS), wanted(), penalty)
    gap = streams.gap(range(USERS), wanted(), penalty, found)
    least = adjust(table.table, wanted(), penalty)
    assert found.after == pytest.approx(loss(table.table, found.scale, found.bias, penalty), abs=1e-5)
    assert found.before == pytest.approx(least.before, abs=1e-5)
    # 1e-4: where L-BFGS stops
    assert least.after - 1e-4 <= found.after <= least.after + gap + 1e-4
    assert gap < 3 * max(found.after - least.after, 1e-4), "a bound that says something"
    changed = np.flatnonzero((found.scale != 1) | (found.bias != 0))
    assert len(changed) <= adjusted + 40
    assert {item for row in wanted() for item in row} <= set(changed.tolist())


def test_more_adjusted_items_are_nearer() -> None:
    gaps = []
    for adjusted in (1, 100, 400):
        streams, _ = both(adjusted)
        gaps.append(streams.gap(range(USERS), wanted(), 0.01, streams.fit(range(USERS), wanted(), 0.01)))
    assert gaps[0] > 1.3 * gaps[1] > 1.3 * 1.3 * gaps[2]


def test_large_scores_overflow_nothing() -> None:
    streams, table = both(100, scale=300.0)  # exp(300) is no float32
    found = streams.fit(range(USERS), wanted(), 1.0)
    assert np.isfinite([found.before, found.after]).all()
    assert found.before == pytest.approx(adjust(table.table, wanted(), 1.0).before, rel=1e-4)
    assert np.isfinite(streams.gap(range(USERS), wanted(), 1.0, found))


def test_no_penalty_has_no_bound_and_no_wishes_no_fit() -> None:
    streams, _ = both()
    assert streams.gap([0, 1], [[1], [2]], 0.0, adjust(np.zeros((2, ITEMS)), [[1], [2]])) == float("inf")
    with pytest.raises(DataError, match="nothing to adjust to"):
        streams.fit([0, 1], [[], []], 0.01)
    with pytest.raises(DataError, match="1 users for scores of 2"):
        streams.fit([0, 1], [[1]], 0.01)


def test_the_rest_counts_by_hand() -> None:
    # one user, item 0 adjusted and wanted with s = 0, the rest weighs e^s = 3: p = 1/4 at first, -log p = log 4
    found = adjust_some(np.zeros((1, 1)), [{0: 1.0}], np.log([3.0]), 1000.0)
    assert found.before == pytest.approx(np.log(4))
    # b = (1 - p) / (2 · penalty), as penalty keeps p at 1/4
    assert found.bias[0] == pytest.approx(0.75 / 2000, rel=1e-2)
    alone = adjust_some(np.zeros((1, 1)), [{0: 1.0}], np.array([-np.inf]), 0.01)
    assert (alone.before, alone.bias[0]) == (0.0, 0.0), "the only item is certain"


def embed(texts: list[str]) -> np.ndarray:
    """A vector for each text, from its characters."""
    return np.concatenate(
        [unit(1, sum(ord(c) * (k + 1) for k, c in enumerate(text))) for text in texts] or [unit(0, 0)]
    )


@pytest.mark.parametrize("rated", [False, True])
def test_demonstrations_without_a_table(rated: bool) -> None:
    catalog = catalog_of({"title": f"Film {number}", "year": 2000} for number in range(150))
    rng = np.random.default_rng(0)
    lists = {str(n): "\n".join(f"Film {one} (2000)" for one in rng.integers(0, 180, 12)) for n in range(40)}
    rows = {
        str(n): {
            "id": str(n), "prompt": f"hello {n}", "seen_titles": [f"Film {one} (2000)" for one in rng.integers(0, 150, 3)],
            "groundtruth_with_release_year": [[f"Film {one}", "2000"] for one in rng.integers(0, 30, 2)],
        }
        for n in range(40)
    }  # fmt: skip
    rate = (lambda asked: {name: {0: -2.0, 1: 2.0} for name in list(asked)[::2]}) if rated else None
    found = {}
    for memory in (4.0, 1e-4):
        settings = DemonstrationSettings(size=10, rated=20, memory_gb=memory)
        remapper = Remapper(CatalogVerifier(catalog, relevant_required=False), embed, settings)
        found[memory] = demonstrate(rows, lists, remapper, rate)
    assert isinstance(remapper.table([], []), DenseScores)
    assert not remapper.settings.fits(40, 150)
    assert found[4.0].rows == found[1e-4].rows
    told = found[1e-4].figures
    assert told.pop("nll_gap") < 1e-4
    assert told == pytest.approx(found[4.0].figures, abs=1e-4)


def test_memory_decides() -> None:
    assert DemonstrationSettings().fits(5000, 10_000), "as before"
    assert not DemonstrationSettings().fits(20_000, 1_000_000)
    assert DemonstrationSettings(memory_gb=1).adjusted(5000) == 10_000
    assert DemonstrationSettings(memory_gb=0.1).adjusted(20_000) == 2684  # 0.05 GB of 4 bytes for 5,000 conversations
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UserError, match="memory_gb is"):
            DemonstrationSettings(memory_gb=wrong)


class Counting:
    fingerprint = "counting"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls.append(len(texts))
        return embed(texts)


def test_vectors_of_many_items_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPOST_CACHE", str(tmp_path))
    items = catalog_of([{"title": f"Film {n}", "genre": "x"} for n in range(25)]).items
    first, again, plain = Counting(), Counting(), embed
    whole = vectors.item_vectors(items, first, at_once=100)
    assert first.calls == [25]
    kept = vectors.item_vectors(items, first, at_once=10)
    assert first.calls == [25, 10, 10, 5]
    assert np.array_equal(kept, whole)
    assert np.array_equal(vectors.item_vectors(items, again, at_once=10), whole)
    assert again.calls == []
    other = catalog_of([{"title": f"Film {n}", "genre": "y"} for n in range(25)]).items
    vectors.item_vectors(other, again, at_once=10)
    assert again.calls == [10, 10, 5], "other descriptions, other vectors"
    folders = len(list((tmp_path / "catalogs").glob("*-vectors")))
    assert np.array_equal(vectors.item_vectors(items, plain, at_once=10), whole)
    assert len(list((tmp_path / "catalogs").glob("*-vectors"))) == folders == 2, "an unknown embedder leaves nothing"
