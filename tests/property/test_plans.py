"""Plans, the sampler and seeds on random inputs. Not covered: chosen cases (tests/unit/data, tests/unit/rollout)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.data.packing import plan_updates
from rlpost.data.sampler import indices
from rlpost.rollout.sampling import group_seed, requests, spread

MODES = settings(deadline=None, derandomize=True, max_examples=80)


@MODES
@given(
    lengths=st.lists(st.integers(1, 40), max_size=30),
    epochs=st.integers(1, 3),
    minibatches=st.integers(1, 5),
    ranks=st.integers(1, 4),
    micro_tokens=st.integers(1, 100),
    seed=st.integers(0, 2**31),
)
def test_every_row_is_trained_on_exactly_once_a_pass(
    lengths: list[int], epochs: int, minibatches: int, ranks: int, micro_tokens: int, seed: int
) -> None:
    options = {"epochs": epochs, "minibatches": minibatches, "ranks": ranks, "micro_tokens": micro_tokens}
    plan = plan_updates(lengths, **options, seed=(seed, 3))
    assert plan == plan_updates(lengths, **options, seed=(seed, 3))
    assert Counter(row for u in plan for row in u.rows) == dict.fromkeys(range(len(lengths)), epochs)
    per_pass = min(minibatches, len(lengths))
    assert len(plan) == epochs * per_pass
    for start in range(0, len(plan), per_pass or 1):
        chunk = plan[start : start + per_pass]
        assert sorted(row for u in chunk for row in u.rows) == list(range(len(lengths)))
        assert max(len(u.rows) for u in chunk) - min(len(u.rows) for u in chunk) <= 1
    for update in plan:
        assert len(update.micro) == ranks
        assert len({len(batches) for batches in update.micro}) == 1
        assert sorted(row for batches in update.micro for b in batches for row in b) == sorted(update.rows)
        # no round is empty on every rank
        assert all(any(batches[i] for batches in update.micro) for i in range(len(update.micro[0])))
        for batches in update.micro:
            for rows in batches:
                assert len(rows) <= 1 or max(lengths[r] for r in rows) * len(rows) <= micro_tokens


@MODES
@given(count=st.integers(1, 30), per_step=st.integers(1, 40), seed=st.integers(0, 99), shuffle=st.booleans())
def test_every_row_is_used_once_before_any_is_used_again(count: int, per_step: int, seed: int, shuffle: bool) -> None:
    steps = -(-3 * count // per_step)
    stream = [row for step in range(steps) for row in indices(step, per_step, count, seed, shuffle)]
    assert len(stream) == steps * per_step
    for epoch in range(len(stream) // count):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


@MODES
@given(count=st.integers(1, 30), per_step=st.integers(1, 40), start=st.integers(0, 50), seed=st.integers(0, 99))
def test_a_step_needs_no_memory_of_the_steps_before(count: int, per_step: int, start: int, seed: int) -> None:
    # the same stream cut into single rows gives the same rows: the step number is all there is to resume from
    singles = [indices(start * per_step + i, 1, count, seed)[0] for i in range(per_step)]
    assert indices(start, per_step, count, seed) == singles


@MODES
@given(run_seed=st.integers(0, 2**40), step=st.integers(0, 10**6), size=st.integers(1, 64), prompts=st.integers(1, 40))
def test_the_seeds_of_different_groups_never_overlap(run_seed: int, step: int, size: int, prompts: int) -> None:
    asked = [
        request
        for stream in ("train", "evaluation")
        for at in (step, step + 1)
        for request in requests([("p", (1,))] * prompts, run_seed=run_seed, step=at, group_size=size, stream=stream)
    ]
    seeds = [request.seed + i for request in asked for i in range(request.n)]
    assert len(set(seeds)) == len(seeds)
    # what vLLM takes: a signed 64-bit integer
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


@MODES
@given(st.integers(0, 2**62), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(1, 1000))
def test_group_seeds_are_multiples_of_the_group_size(run_seed: int, step: int, slot: int, size: int) -> None:
    assert group_seed(run_seed, step, slot, size) % size == 0


@MODES
@given(prompts=st.integers(0, 30), workers=st.integers(1, 7))
def test_every_request_goes_to_one_engine(prompts: int, workers: int) -> None:
    asked = requests([("p", (1,))] * prompts, run_seed=0, step=0, group_size=2)
    shares = spread(asked, workers)
    assert sorted(i for share in shares for i in share) == list(range(prompts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
