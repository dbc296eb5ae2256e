"""Seeds and the split over engines by hand. Not covered: that groups never overlap (tests/property/test_plans.py)."""

from __future__ import annotations

from rlpost.protocols import GenerateRequest, SamplingSettings
from rlpost.rollout.sampling import group_seed, requests, round_robin
from rlpost.rollout.stream import generate
from support.fakes import FakeEngine


def test_seeds_depend_on_every_part_of_their_address() -> None:
    base = group_seed(17, 3, 2, 8)
    assert base == group_seed(17, 3, 2, 8)
    others = {
        group_seed(18, 3, 2, 8),
        group_seed(17, 4, 2, 8),
        group_seed(17, 3, 1, 8),
        group_seed(17, 3, 2, 8, "eval"),
    }
    assert len(others | {base}) == 5


def test_parts_of_an_address_do_not_run_together() -> None:
    assert group_seed(1, 11, 1, 1) != group_seed(11, 1, 1, 1)
    assert group_seed(0, 1, 12, 1) != group_seed(0, 11, 2, 1)


def test_the_seed_of_a_version_is_fixed() -> None:
    """Do not adapt this test without a decision: another value makes every recorded run irreproducible."""
    assert group_seed(17, 0, 0, 8) == 1444121167274829080


def test_one_request_for_each_prompt_in_order() -> None:
    found = requests([("a", (1, 2)), ("b", (3,))], run_seed=17, step=5, group_size=4)
    assert [(r.prompt_id, r.prompt_ids, r.n) for r in found] == [("a", (1, 2), 4), ("b", (3,), 4)]
    assert [r.seed for r in found] == [group_seed(17, 5, 0, 4), group_seed(17, 5, 1, 4)]


def test_a_prompt_that_occurs_twice_in_a_batch_draws_differently() -> None:
    first, second = requests([("a", (1,)), ("a", (1,))], run_seed=17, step=0, group_size=4)
    assert first.seed != second.seed


def test_requests_go_round_robin() -> None:
    four = [GenerateRequest(str(i), (), 1, i) for i in range(4)]
    assert round_robin(four, 3) == [[0, 3], [1], [2]]
    assert round_robin([], 2) == [[], []]


def test_the_fake_engine_answers_by_seed_and_is_cut_at_max_tokens() -> None:
    engine = FakeEngine(lambda name, rng: name * rng.randint(1, 9))
    asked = [GenerateRequest("ab", (1,), 3, 100), GenerateRequest("c", (2,), 1, 102)]
    found = generate(engine, asked, SamplingSettings(max_tokens=5))
    assert found == generate(engine, asked, SamplingSettings(max_tokens=5))
    assert [(c.prompt_id, c.index, c.seed) for c in found] == [
        ("ab", 0, 100),
        ("ab", 1, 101),
        ("ab", 2, 102),
        ("c", 0, 102),
    ]
    for c in found:
        assert len(c.token_ids) <= 5 + 1
        assert (c.finish_reason == "stop") == (c.token_ids[-1] == 0)
        assert "".join(map(chr, c.token_ids)).rstrip("\0") == c.text


def test_the_fake_engine_never_samples_more_than_max_tokens() -> None:
    for size in (3, 4, 5, 6):
        [c] = generate(
            FakeEngine(lambda name, rng, n=size: "x" * n),
            [GenerateRequest("a", (1,), 1, 0)],
            SamplingSettings(max_tokens=5, logprobs=False),
        )
        # the end token counts: four letters and it are five tokens, five letters leave no room for it
        assert (len(c.token_ids), c.finish_reason) == {
            3: (4, "stop"),
            4: (5, "stop"),
            5: (5, "length"),
            6: (5, "length"),
        }[size]
        assert c.logprobs is None
