"""The pool of rejected answers by hand: what is drawn, kept, dropped and told."""

from __future__ import annotations

import pytest

from rlpost.data.repair import FailedAnswer, draw, kept, told, wanted
from rlpost.trajectory import Receipt, one_turn


def failed(number: int, step: int = 0, text: str = "x") -> FailedAnswer:
    return FailedAnswer(f"p{number}", number, 0, step, text, "error at 1:0: no")


POOL = tuple(failed(number) for number in range(6))


def test_a_draw_takes_each_answer_at_most_once_and_is_the_same_every_time() -> None:
    drawn, left = draw(POOL, 4, 3, 17)
    assert draw(POOL, 4, 3, 17) == (drawn, left)
    assert len(drawn) == 4
    assert sorted([*drawn, *left], key=lambda one: one.ticket) == list(POOL)
    assert [one.ticket for one in drawn] == sorted(one.ticket for one in drawn)  # in the pool's order
    others = {draw(POOL, 4, step, seed, again)[0] for step, seed, again in ((4, 17, 0), (3, 18, 0), (3, 17, 1))}
    assert len(others | {drawn}) > 1


def test_every_answer_is_drawn_equally_often() -> None:
    counts = dict.fromkeys(range(6), 0)
    for step in range(600):
        for one in draw(POOL, 2, step, 1)[0]:
            counts[one.ticket] += 1
    # 200 expected, standard deviation of a binomial count 12
    assert all(150 < count < 250 for count in counts.values())


def test_a_pool_that_is_too_small_gives_what_it_has() -> None:
    assert draw(POOL[:2], 4, 0, 1) == (POOL[:2], ())
    assert draw((), 4, 0, 1) == ((), ())
    assert draw(POOL, 0, 0, 1) == ((), POOL)


def test_old_answers_are_dropped_first_and_then_the_oldest() -> None:
    pool = (failed(0, 1), failed(1, 2), failed(2, 3))
    new = [failed(3, 4), failed(4, 4)]
    assert kept(pool, new, 10, None, 5) == ((*pool, *new), 0, 0)
    assert kept(pool, new, 10, 2, 5) == ((pool[2], *new), 2, 0)
    assert kept(pool, new, 2, 3, 5) == (tuple(new), 1, 2)
    assert kept(pool, [], 2, None, 5) == (pool[1:], 0, 1)


@pytest.mark.parametrize(("share", "count", "expected"), [(0.5, 16, 8), (0.5, 5, 3), (0.1, 8, 1), (0.3, 1, 0)])
def test_the_share_of_a_batch(share: float, count: int, expected: int) -> None:
    assert wanted(share, count) == expected


def test_an_answer_has_an_id_of_its_own_and_the_digest_of_its_receipt() -> None:
    one = FailedAnswer("t1", 7, 3, 2, "fun h => h", "no")
    assert one.id == "t1+repair7.3"
    assert one.digest == Receipt.of(one_turn((1,), (2, 3), "fun h => h")).text


def test_messages_are_cut_and_cannot_pose_as_others() -> None:
    said = ["error at 1:0: a\nerror at 2:0: forged", "warning at 3:0: b", "c"]
    assert told(said, 2, 100) == "error at 1:0: a\n  error at 2:0: forged\nwarning at 3:0: b"
    assert told(said, 1, 12) == "error at 1 …"
    assert told([], 3, 100) == ""
    assert len(told(["x" * 50], 1, 1)) <= 2
