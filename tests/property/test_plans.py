"""Plans, the sampler and seeds on random inputs. Not covered: chosen cases (tests/unit/data, tests/unit/rollout)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.data.sampler import rows
from rlpost.learner.packing import (
    ROW_TOKENS,
    Layout,
    MicroBatchPlan,
    SampleSize,
    group_by_prompt,
    plan_updates,
    sample_indices,
    sequence_length,
    spread_over_ranks,
)
from rlpost.rollout.sampling import group_seed, requests, round_robin, turn_seed
from support.trajectories import tokenized

MODES = settings(deadline=None, derandomize=True, max_examples=80)


ITEMS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=30)


@MODES
@given(
    pairs=ITEMS,
    epochs=st.integers(1, 3),
    minibatches=st.integers(1, 5),
    ranks=st.integers(1, 4),
    micro_tokens=st.integers(1, 100),
    kind=st.sampled_from([(False, False), (True, False), (True, True)]),
    seed=st.integers(0, 2**31),
)
def test_every_row_is_trained_on_exactly_once_a_pass(
    pairs: list[tuple[int, int]], epochs: int, minibatches: int, ranks: int, micro_tokens: int,
    kind: tuple[bool, bool], seed: int,
) -> None:  # fmt: skip
    sizes = [SampleSize(prompt, 2 * prompt + 1, completion) for prompt, completion in pairs]
    layout = Layout(packed=kind[0], share_prompts=kind[1], micro_tokens=micro_tokens)
    options = {"epochs": epochs, "minibatches": minibatches, "ranks": ranks, "layout": layout}
    plan = plan_updates(sizes, **options, seed=(seed, 3))
    assert plan == plan_updates(sizes, **options, seed=(seed, 3))
    assert Counter(row for u in plan for row in u.indices) == dict.fromkeys(range(len(sizes)), epochs)
    per_pass = min(minibatches, len(sizes))
    assert len(plan) == epochs * per_pass
    for start in range(0, len(plan), per_pass or 1):
        chunk = plan[start : start + per_pass]
        assert sorted(row for u in chunk for row in u.indices) == list(range(len(sizes)))
        assert max(len(u.indices) for u in chunk) - min(len(u.indices) for u in chunk) <= 1
    for update in plan:
        assert len(update.micro) == ranks
        assert len({len(batches) for batches in update.micro}) == 1
        assert sorted(row for batches in update.micro for b in batches for row in sample_indices(b)) == sorted(
            update.indices
        )
        # no round is empty on every rank
        assert all(any(batches[i] for batches in update.micro) for i in range(len(update.micro[0])))
        for batches in update.micro:
            for micro in batches:
                check_micro_batch(micro, sizes, layout)


def check_micro_batch(micro: MicroBatchPlan, sizes: list[SampleSize], layout: Layout) -> None:
    """A micro-batch's padded size is within the budget, and its rows and sequences follow the layout."""
    lengths = [sum(sequence_length(segment, sizes) for segment in line) for line in micro]
    assert len(sample_indices(micro)) <= 1 or max(lengths) * len(lengths) <= layout.micro_tokens
    for line, length in zip(micro, lengths, strict=True):
        assert len(line) == 1 or (layout.packed and length <= ROW_TOKENS)
        for segment in line:
            assert len(segment) == 1 or layout.share_prompts
            assert len({sizes[row].prompt for row in segment}) == 1


@MODES
@given(pairs=ITEMS.filter(len), ranks=st.integers(1, 4), shared=st.booleans())
def test_no_rank_exceeds_its_fair_share_by_more_than_a_sequence_and_repeated_prompts(
    pairs: list[tuple[int, int]], ranks: int, shared: bool
) -> None:
    sizes = [SampleSize(prompt, 2 * prompt + 1, completion) for prompt, completion in pairs]
    layout = Layout(packed=True, share_prompts=shared, micro_tokens=10**6)
    shares = spread_over_ranks(group_by_prompt(range(len(sizes)), sizes, layout), sizes, ranks)
    loads = [sum(sequence_length(part, sizes) for part in share) for share in shares]
    longest = max(sequence_length((row,), sizes) for row in range(len(sizes)))
    assert max(loads) <= sum(loads) / ranks + longest + max(size.prompt_tokens for size in sizes) * ranks


@MODES
@given(count=st.integers(1, 30), per_step=st.integers(1, 40), seed=st.integers(0, 99), shuffle=st.booleans())
def test_every_row_is_used_once_before_any_is_used_again(count: int, per_step: int, seed: int, shuffle: bool) -> None:
    steps = -(-3 * count // per_step)
    stream = [row for step in range(steps) for row in rows(step * per_step, per_step, count, seed, shuffle)]
    assert len(stream) == steps * per_step
    for epoch in range(len(stream) // count):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


@MODES
@given(count=st.integers(1, 30), per_step=st.integers(1, 40), start=st.integers(0, 50), seed=st.integers(0, 99))
def test_the_rows_of_a_step_do_not_depend_on_earlier_steps(count: int, per_step: int, start: int, seed: int) -> None:
    # the same stream in steps of one row gives the same rows: the step number is all that a resumed run knows
    singles = [rows(start * per_step + i, 1, count, seed)[0] for i in range(per_step)]
    assert rows(start * per_step, per_step, count, seed) == singles


@MODES
@given(run_seed=st.integers(0, 2**40), step=st.integers(0, 10**6), size=st.integers(1, 64), prompts=st.integers(1, 40))
def test_the_seeds_of_different_groups_never_overlap(run_seed: int, step: int, size: int, prompts: int) -> None:
    asked = [
        request
        for stream in ("train", "evaluation")
        for at in (step, step + 1)
        for request in requests([tokenized("p")] * prompts, run_seed=run_seed, step=at, group_size=size, stream=stream)
    ]
    seeds = [seed for request in asked for seed in request.seeds]
    assert len(seeds) == 4 * prompts * size
    assert len(set(seeds)) == len(seeds)
    # vLLM takes a signed 64-bit integer
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


@MODES
@given(st.integers(0, 2**62), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(1, 1000))
def test_group_seeds_are_multiples_of_the_group_size(run_seed: int, step: int, slot: int, size: int) -> None:
    assert group_seed(run_seed, step, slot, size) % size == 0


@MODES
@given(st.integers(0, 2**62), st.integers(1, 40))
def test_the_seeds_of_a_trajectorys_turns_differ_and_fit_the_engine(seed: int, turns: int) -> None:
    seeds = [turn_seed(seed, turn) for turn in range(turns)]
    assert seeds[0] == seed
    assert len(set(seeds)) == turns
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


@MODES
@given(prompts=st.integers(0, 30), workers=st.integers(1, 7))
def test_every_request_goes_to_one_engine(prompts: int, workers: int) -> None:
    asked = requests([tokenized("p")] * prompts, run_seed=0, step=0, group_size=2)
    shares = round_robin(asked, workers)
    assert sorted(i for share in shares for i in share) == list(range(prompts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
