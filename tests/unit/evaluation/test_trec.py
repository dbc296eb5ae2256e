"""TREC's formats: lines by hand, what readers get from them, and the values that pytrec_eval and ir_measures find."""

from __future__ import annotations

import json
import math
import random

import pytest

from rlpost.errors import DataError
from rlpost.evaluation import rankify
from rlpost.evaluation.exchange import export, judge
from rlpost.evaluation.lists import Listed, list_figures
from rlpost.evaluation.outcomes import Outcome, figures
from rlpost.evaluation.ranked import Ranking
from rlpost.evaluation.trec import qrels_lines, read_qrels, read_run, run_lines, safe_id, whole_grades

ALIEN, UP, AMELIE = "Alien (1979)", "Up (2009)", "Amélie (2001)"


def outcome(name: str, *given: object, **more: object) -> Outcome:
    return Outcome(name, "", 0, "", Listed(*given, **more))  # type: ignore[arg-type]


MIXED = [
    outcome("q 1", "mhdo", 2, (UP, ALIEN, ALIEN, None), relevant_items=(ALIEN, AMELIE)),
    outcome("q2", "", 1, (), relevant_items=(UP,)),
    Outcome("q3", "?", 0),
]


def test_a_run_and_qrels_by_hand() -> None:
    found = export(MIXED)
    assert list(run_lines(found.run, "my tag")) == [
        "q%201 Q0 Up%20(2009) 1 4 my%20tag",
        "q%201 Q0 Alien%20(1979) 2 3 my%20tag",
        "q%201 Q0 ~duplicate-3 3 2 my%20tag",
        "q%201 Q0 ~out_of_catalog-4 4 1 my%20tag",
        "q2 Q0 ~empty 1 1 my%20tag",
    ]
    grades, factor = whole_grades(found.qrels)
    assert factor == 1
    assert list(qrels_lines(grades)) == [
        "q%201 0 Alien%20(1979) 1",
        "q%201 0 Am%C3%A9lie%20(2001) 1",
        "q2 0 Up%20(2009) 1",
    ]
    assert found.names["Am%C3%A9lie%20(2001)"] == AMELIE
    assert found.queries == {"q%201": "q 1", "q2": "q2"}
    assert [note.split(" ")[0] for note in found.notes] == ["1", "1", "places"]
    assert "1 of 3 prompts have no judged list" in found.notes[0]
    assert "1 queries have an empty list" in found.notes[1]


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "~x",
        "%",
        "%20",
        "a b",
        "a%20b",
        'say "x"',
        "it's",
        "日本語",
        "tab\there",
        "a\u2028b",
        "\ud83d",
        "A" * 400,
        "#1",
    ],
)
def test_ids_are_single_words_of_ascii_and_none_is_two_names(name: str) -> None:
    made = safe_id(name)
    assert made.split() == [made]
    assert made.isascii()
    assert not made.startswith("~")
    others = ["", " ", "~x", "%", "%20", "a b", "a%20b", "a%2520b", "%7Ex", "~", "%7E"]
    assert all(safe_id(other) != made for other in others if other != name)


def random_outcomes(rng: random.Random, graded: bool) -> list[Outcome]:
    """Lists as models write them: repetitions, inventions, seen items, empty ones; and what is relevant."""
    catalog = [f"Film {n} (19{n:02})" for n in range(30)]
    found: list[Outcome] = []
    for query in range(60):
        relevant = rng.sample(catalog, rng.randint(1, 6))
        worth = {item: float(rng.randint(1, 4)) if graded else 1.0 for item in relevant}
        items: list[str | None] = [rng.choice([*catalog, None]) for _ in range(rng.choice([0, 1, 5, 12]))]
        marks, seen = "", set[str]()
        for item in items:
            mark = "o" if item is None else "d" if item in seen else "h" if item in worth else rng.choice("mse")
            marks += mark
            seen |= {item} if item else set()
        relevances = tuple(worth.values()) if graded else ()
        scores = (
            tuple(worth.get(item, 0.0) if mark == "h" else 0.0 for item, mark in zip(items, marks, strict=True))
            if graded
            else ()
        )  # type: ignore[arg-type]
        found.append(
            outcome(f"user {query}", marks, len(worth), tuple(items), relevances=relevances, scores=scores,
                    relevant_items=tuple(worth))
        )  # fmt: skip
    return found


def means(found: list[Outcome], k: int) -> tuple[float, float]:
    """nDCG and the share of relevant items found, by this file's own arithmetic, over all lists."""
    ndcg, recall = 0.0, 0.0
    for one in found:
        assert one.listed is not None
        own = one.listed
        gains = [
            (s if own.scores else 1.0) * (m == "h") for m, s in zip(own.marks, own.scores or (1.0,) * 99, strict=False)
        ]
        best = sorted(own.relevances or (1.0,) * own.relevant, reverse=True)
        ndcg += sum(g / math.log2(r + 2) for r, g in enumerate(gains[:k])) / sum(
            g / math.log2(r + 2) for r, g in enumerate(best[:k])
        )
        recall += sum(g > 0 for g in gains[:k]) / own.relevant
    return ndcg / len(found), recall / len(found)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_pytrec_eval_finds_our_values_on_what_we_export(graded: bool, old: bool) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    own = random_outcomes(random.Random(7 + graded), graded)
    if old:  # evaluations of before names were kept
        own = [Outcome(o.id, "", 0, "", Listed(o.listed.marks, o.listed.relevant, o.listed.items, (), 0,
               o.listed.relevances, o.listed.scores)) for o in own if o.listed is not None]  # fmt: skip
    found = export(own)
    grades, _ = whole_grades(found.qrels)
    run = pytrec_eval.parse_run(list(run_lines(found.run, "t")))
    qrels = pytrec_eval.parse_qrel(list(qrels_lines(grades)))
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.5,10", "recall.5"}).evaluate(run)
    assert len(theirs) == len(own), "no query is missing from the mean"
    lists = [one.listed for one in own if one.listed is not None]
    ours = list_figures(lists, [5, 10])
    for k in (5, 10):
        mean = sum(values[f"ndcg_cut_{k}"] for values in theirs.values()) / len(theirs)
        assert mean == pytest.approx(ours[f"ndcg@{k}"], abs=1e-6)
        assert mean == pytest.approx(means(own, k)[0], abs=1e-6)
    counted = sum(values["recall_5"] for values in theirs.values()) / len(theirs)
    assert counted == pytest.approx(means(own, 5)[1], abs=1e-6)
    if not graded:
        assert counted == pytest.approx(ours["recall@5"], abs=1e-6)


def test_ir_measures_finds_our_values_on_what_we_export() -> None:
    ir = pytest.importorskip("ir_measures")
    own = random_outcomes(random.Random(3), graded=False)
    found = export(own)
    run = list(ir.read_trec_run("\n".join(run_lines(found.run, "t")) + "\n"))
    qrels = list(ir.read_trec_qrels("\n".join(qrels_lines(whole_grades(found.qrels)[0])) + "\n"))
    theirs = ir.calc_aggregate([ir.nDCG @ 10, ir.R @ 5], qrels, run)
    ours = list_figures([one.listed for one in own if one.listed is not None], [5, 10])
    assert theirs[ir.nDCG @ 10] == pytest.approx(ours["ndcg@10"], abs=1e-6)
    assert theirs[ir.R @ 5] == pytest.approx(ours["recall@5"], abs=1e-6)


def test_an_export_judged_again_has_the_values_that_it_had() -> None:
    for graded in (False, True):
        own = random_outcomes(random.Random(graded), graded)
        found = export(own)
        rankings, notes = read_run(run_lines(found.run, "t"), "run")
        again, more = judge(rankings, read_qrels(qrels_lines(whole_grades(found.qrels)[0]), "q"), found.names,
                            found.queries)  # fmt: skip
        assert notes == more == []
        assert [one.id for one in again] == [one.id for one in own]
        before, after = figures(own, (), (1, 5, 10)), figures(again, (), (1, 5, 10))
        for name in (
            "ndcg@1",
            "ndcg@5",
            "ndcg@10",
            "recall@1",
            "recall@10",
            "ndcg@5_se",
            "places",
            "duplicates",
            "in_catalog",
        ):
            assert after[name] == pytest.approx(before[name], abs=1e-9), name


def test_places_may_be_dropped() -> None:
    found = export(MIXED, places="drop")
    assert found.run["q%201"] == ["Up%20(2009)", "Alien%20(1979)"]
    assert "were dropped" in found.notes[2]


def test_docnos_of_ones_own() -> None:
    found = export(MIXED, {ALIEN: "tt0078748"})
    assert found.run["q%201"][:2] == ["Up%20(2009)", "tt0078748"]
    with pytest.raises(DataError, match=r"docno 'tt1' stands for 'Alien \(1979\)' and 'Up"):
        export(MIXED, {ALIEN: "tt1", UP: "tt1"})
    for bad in ("a b", "~x", ""):
        with pytest.raises(DataError, match="is no single word"):
            export(MIXED, {ALIEN: bad})
    with pytest.raises(DataError, match="no prompt has a judged list"):
        export(MIXED[2:])


def test_a_relevant_item_that_was_no_hit_is_none_for_readers_either() -> None:
    """A verifier of one's own may call a relevant item seen."""
    assert export([outcome("q", "sm", 1, (ALIEN, UP), relevant_items=(ALIEN,))]).run["q"] == ["~seen-1", "Up%20(2009)"]


def test_hits_of_a_verifier_that_names_nothing() -> None:
    found = export([outcome("q", "mh", 2)])
    assert found.run["q"] == ["~miss-1", "~hit-2"]
    assert found.qrels["q"] == {"~hit-2": 1.0, "~relevant-1": 1.0}
    rankings, _ = read_run(run_lines(found.run, "t"), "run")
    again, _ = judge(rankings, found.qrels)
    assert again[0].listed is not None
    assert again[0].listed.ndcg(5) == pytest.approx(Listed("mh", 2).ndcg(5))


def test_relevances_become_whole_numbers_in_proportion() -> None:
    assert whole_grades({"q": {"a": 2.0, "b": 1.0}}) == ({"q": {"a": 2, "b": 1}}, 1.0)
    assert whole_grades({"q": {"a": 20.0, "b": 1.25}}) == ({"q": {"a": 2000, "b": 125}}, 100.0)
    assert whole_grades({"q": {"a": 0.5, "b": 0.25}}) == ({"q": {"a": 5000, "b": 2500}}, 10000.0)
    for bad, said in ((math.nan, "is no number"), (math.inf, "is no number")):
        with pytest.raises(DataError, match=said):
            whole_grades({"q": {"a": bad}})
    with pytest.raises(DataError, match="becomes 0 as a whole number beside 9000"):
        whole_grades({"q": {"a": 9000.5, "b": 0.1}})


def test_a_run_is_read_in_the_order_that_trec_eval_gives_it() -> None:
    lines = ["q1 Q0 a 1 0.5 t", "q1\tQ0\tc\t2\t7e-1\tt", "", "q1 Q0 b 3 0.5 t", "q2 Q0 a 1 1 t\r"]
    found, notes = read_run(lines, "run.txt")
    assert found == [Ranking("q1", ("c", "b", "a")), Ranking("q2", ("a",))]
    assert notes == ["run.txt: ranks and scores disagree in 1 of 2 queries; scores decide, as in trec_eval"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("q1 Q0 Alien (1979) 1 1 t", "has 7 columns; a run has six"),
        ("q1 Q0 d1 1 1", "has 5 columns"),
        ("q1,Q0,d1,1,1,t", "has 1 columns"),
        ("q1 Q0 d1 1 nan t", "score 'nan' must be numbers"),
        ("q1 Q0 d1 first 1 t", "rank 'first'"),
        ("q1 Q0 d0 2 1 t", "names 'd0' twice"),
        ('{"id": "q"}', "has 2 columns"),
    ],
)
def test_lines_that_are_no_run(line: str, said: str) -> None:
    with pytest.raises(DataError, match=r"run, line 2: .*" + said.replace("(", "\\(")):
        read_run(["q1 Q0 d0 1 2 t", line], "run")


def test_no_lines_are_no_run_and_no_qrels() -> None:
    for read in (read_run, read_qrels):
        with pytest.raises(DataError, match="no lines"):
            read(["", "  "], "file")


def test_qrels_of_trec_and_of_beir() -> None:
    trec = read_qrels(["q1 0 a 2", "q1\t0\tb\t0", "q2 Q0 a 0.5"], "q")
    assert trec == {"q1": {"a": 2.0, "b": 0.0}, "q2": {"a": 0.5}}
    assert read_qrels(["query-id\tcorpus-id\tscore", "q1\ta\t1"], "q") == {"q1": {"a": 1.0}}
    for lines, said in (
        (["q1 0 a 1", "q1 0 a 2"], "line 2: 'a' has two relevances"),
        (["q1 0 a high"], "relevance 'high' is no number"),
        (["q1 a"], "has 2 columns"),
        (["q1 0 a 1", "query-id corpus-id score"], "line 2: relevance 'score'"),
    ):
        with pytest.raises(DataError, match=said):
            read_qrels(lines, "q")


def test_every_query_of_the_qrels_counts() -> None:
    found, notes = judge([Ranking("q1", ("a", "x")), Ranking("q9", ("a",))],
                         {"q1": {"a": 1.0}, "q2": {"b": 1.0}, "q3": {"c": 0.0}}, {"a": ALIEN})  # fmt: skip
    assert [one.id for one in found] == ["q1", "q2"]
    assert figures(found, (), (5,))["ndcg@5"] == 0.5
    assert found[0].listed is not None
    assert found[0].listed.items == (ALIEN, "x")
    assert [note.split()[0] for note in notes] == ["1", "1", "1"]
    with pytest.raises(DataError, match="no query with a relevant document in common"):
        judge([Ranking("q1", ("a",))], {"q2": {"a": 1.0}})


def test_rankify_gets_documents_and_gives_them_back() -> None:
    found = export(MIXED)
    rows = rankify.documents(found, {"q 1": "What should I watch?"})
    assert rows[0] == {
        "question": "What should I watch?",
        "answers": [ALIEN, AMELIE],
        "query_id": "q%201",
        "ctxs": [
            {"id": "Up%20(2009)", "title": UP, "text": UP, "score": 2.0, "has_answer": False},
            {"id": "Alien%20(1979)", "title": ALIEN, "text": ALIEN, "score": 1.0, "has_answer": True},
        ],
    }
    assert rankify.read(rows, "r") == [Ranking("q%201", ("Up%20(2009)", "Alien%20(1979)")), Ranking("q2", ())]
    # what Rankify saves has no query_id, and its own order beside the given one
    saved = [{"question": row["question"], "answers": [], "ctxs": row["ctxs"], "reranked_ctxs": row["ctxs"][::-1]}
             for row in json.loads(json.dumps(rows))]  # fmt: skip
    again = rankify.read(saved, "r", {"q 1": "What should I watch?"})
    assert again == [Ranking("q 1", ("Alien%20(1979)", "Up%20(2009)")), Ranking("q2", ())]
    for bad, said in (
        (["x"], "no mapping"),
        ([{"ctxs": []}], "no query_id or question"),
        ([{"question": "a"}], "no list ctxs"),
        ([{"question": "a", "ctxs": [{"title": "x"}]}], "a context without id"),
        ([rows[0], rows[0]], "is there twice"),
        ([], "no entries"),
    ):
        with pytest.raises(DataError, match=said):
            rankify.read(bad, "r")
