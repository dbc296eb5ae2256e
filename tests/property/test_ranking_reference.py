"""nDCG and recall against trec_eval's on random lists, where the definitions are the same: whole lists without repeats,
the strict protocol, positive gains. Not covered: the released protocol, which trec_eval does not have.
"""

from __future__ import annotations

import random

import pytest

from rlpost.algorithms.ranking import ndcg, recall
from rlpost.evaluation.lists import Listed

pytrec_eval = pytest.importorskip("pytrec_eval")

CUTS = (1, 5, 10, 20)


def drawn(rng: random.Random, graded: bool) -> tuple[list[str], dict[str, int]]:
    """A random list of items without repeats, and the gains of the relevant items of the catalog."""
    catalog = [f"d{i}" for i in range(40)]
    ranked = rng.sample(catalog, rng.randint(1, 25))
    relevant = rng.sample(catalog, rng.randint(1, 12))
    return ranked, {item: rng.randint(1, 4) if graded else 1 for item in relevant}


@pytest.mark.parametrize("graded", [False, True])
def test_ndcg_and_recall_of_random_lists_agree_with_trec_eval(graded: bool) -> None:
    rng = random.Random(int(graded))
    cases = {f"q{i}": drawn(rng, graded) for i in range(200)}
    cuts = ",".join(map(str, CUTS))
    judge = pytrec_eval.RelevanceEvaluator(
        {name: worth for name, (_, worth) in cases.items()}, {f"ndcg_cut.{cuts}", f"recall.{cuts}"}
    )
    # trec_eval sorts by score
    runs = {name: {item: -float(place) for place, item in enumerate(ranked)} for name, (ranked, _) in cases.items()}
    theirs = judge.evaluate(runs)
    for name, (ranked, worth) in cases.items():
        gains, all_gains = [float(worth.get(item, 0)) for item in ranked], [float(value) for value in worth.values()]
        for k in CUTS:
            assert ndcg(gains, all_gains, k) == pytest.approx(theirs[name][f"ndcg_cut_{k}"], abs=1e-6)
            assert recall(gains, all_gains, k) == pytest.approx(theirs[name][f"recall_{k}"], abs=1e-6)
            if not graded:
                listed = Listed("".join("h" if gain else "m" for gain in gains), len(worth))
                assert listed.ndcg(k) == pytest.approx(theirs[name][f"ndcg_cut_{k}"], abs=1e-6)
