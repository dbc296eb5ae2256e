"""The gradient of the whole learner path depends on the batch only, on a small real Llama.

Not covered: several ranks and sharding (tests/integration), bfloat16.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.config.tuning import OptimizerSection
from rlpost.learner import varlen
from rlpost.learner.logprob_model import LogprobModel
from rlpost.learner.packing import Update
from rlpost.learner.policy import PolicyLearner
from rlpost.learner.samples import Samples
from rlpost.learner.torch_engine import TorchEngine
from rlpost.tuning.method import Full
from rlpost.types import TrainBatch, TrainSample
from support.trajectories import sample

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = 64
AGGREGATIONS = ("token", "sequence", "sequence_sum", "span", "constant")
LEVELS = ("token", "span", "sequence")
PLAIN: dict[str, Any] = {"layout": "padded", "logprob_chunk": None, "prefetch": False}
MODES = settings(deadline=None, derandomize=True, max_examples=10)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(shape).double().train()


def configured(micro_tokens: int = 64, learner: dict[str, Any] | None = None, **algorithm: Any) -> RunConfig:
    return from_dict(
        {
            "model": {"path": "m", "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "rollout": {"max_tokens": 16},
            "learner": {"engine": "torch", "micro_tokens": micro_tokens, **(learner or PLAIN)},
            "algorithm": {
                "kl": {"coef": 0.05},
                "importance": {"mode": "truncate"},
                "clip": [0.2, 0.3],
                **algorithm,
            },
        }
    )


def batch(seed: int, count: int = 5, prompts: int | None = None) -> TrainBatch:
    """A random batch, off-policy on purpose: an on-policy loss is near zero whatever is wrong with it.

    Each sample has a prompt of its own, or one of ``prompts`` shared ones.
    """
    rng, samples = np.random.default_rng(seed), []
    known = [rng.integers(0, VOCABULARY, int(rng.integers(1, 6))) for _ in range(prompts or 0)]
    for _ in range(count):
        prompt, size = int(rng.integers(1, 6)), int(rng.integers(1, 9))
        ids = known[int(rng.integers(len(known)))] if known else rng.integers(0, VOCABULARY, prompt)
        old = (-math.log(VOCABULARY) + rng.normal(0, 0.3, size)).astype(np.float32)
        mask = rng.random(size) > 0.2
        columns = {
            "completion": rng.integers(0, VOCABULARY, size),
            # also outside the mask, where they must not count
            "advantages": rng.normal(size=size),
            "spans": np.sort(rng.integers(-1, 3, size)),
            "rollout": np.where(mask, old + rng.normal(0, 0.3, size), np.nan),
            "proximal": np.where(mask, old, np.nan),
            "reference": np.where(mask, old + rng.normal(0, 0.5, size), np.nan),
        }
        samples.append(sample(ids.tolist(), mask=mask.tolist(), **{n: c.tolist() for n, c in columns.items()}))
    return TrainBatch(tuple(samples), 0)


def learner_of(model: Any, config: RunConfig) -> PolicyLearner:
    model.zero_grad(set_to_none=True)
    engine = TorchEngine(LogprobModel(model), Full(model), OptimizerSection(), torch.device("cpu"))
    return PolicyLearner(engine, None, config, {})


def measure(
    model: Any, config: RunConfig, data: TrainBatch, update: Update | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The accumulated gradient of an update as a flat tensor, and its metrics."""
    learner, samples = learner_of(model, config), Samples.of(data.samples)
    [planned] = learner.plan(samples, data.step)
    metrics = learner.passes.accumulate(samples, update or planned, version=0)
    return torch.cat([gradient.flatten() for _, gradient in learner.engine.gradients()]), metrics


def close(found: tuple[Tensor, dict[str, float]], expected: tuple[Tensor, dict[str, float]]) -> None:
    # log-probabilities are taken in float32 whatever the model's dtype
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_the_gradient_does_not_depend_on_micro_batches_order_or_padding(model: Any, aggregate: str, ratio: str) -> None:
    @MODES
    @given(seed=st.integers(0, 999), micro_tokens=st.integers(1, 60), shuffle=st.randoms(use_true_random=False))
    def check(seed: int, micro_tokens: int, shuffle: Any) -> None:
        data = batch(seed)
        algorithm = {"aggregate": aggregate, "ratio": ratio}
        expected = measure(model, configured(10_000, **algorithm), data)
        close(measure(model, configured(micro_tokens, **algorithm), data), expected)
        rows = list(range(len(data.samples)))
        shuffle.shuffle(rows)
        permuted = TrainBatch(tuple(data.samples[row] for row in rows), 0)
        close(measure(model, configured(micro_tokens, **algorithm), permuted), expected)
        # any split of the rows over micro-batches, empty ones included
        cut = shuffle.randint(0, len(rows))
        halves = [tuple(((row,),) for row in part) for part in (rows[:cut], rows[cut:])]
        dealt = Update(tuple(rows), (((), halves[0], (), halves[1]),))
        close(measure(model, configured(10_000, **algorithm), data, dealt), expected)
        assert expected[0].norm() > 1e-4 or not any(s.mask.any() for s in data.samples)

    check()


MEASURES: dict[str, dict[str, Any]] = {
    "packed": {**PLAIN, "layout": "packed", "share_prompts": False},
    "shared prompts": {**PLAIN, "layout": "packed"},
    "chunks": {**PLAIN, "logprob_chunk": 3},
    "prefetch": {**PLAIN, "prefetch": True},
    "all": {"logprob_chunk": 5},
}
VARLEN: dict[str, dict[str, Any]] = {
    "varlen": {**PLAIN, "layout": "packed", "share_prompts": False, "attention": "varlen"},
    "varlen, shared prompts": {**PLAIN, "layout": "packed", "attention": "varlen"},
    "varlen, all": {"logprob_chunk": 5, "attention": "varlen"},
}


FAMILY: dict[str, dict[str, Any]] = {
    "two-sided clip": {"delta": 1.35},
    "cispo": {"loss": "cispo", "clip": [1.0, 0.3]},
    "gmpo": {"recipe": "gmpo"},
    "gmpo by span": {"loss": "gmpo", "ratio": "span", "aggregate": "span", "clip": [0.2, 0.2]},
    "dppo": {"recipe": "dppo", "clip": [0.002, 0.002], "importance": {"cap": 20.0}},
    "sequence mask": {"importance": {"mode": "mask", "level": "sequence", "cap": 1.2}},
    "sequence truncation": {"importance": {"mode": "truncate", "level": "sequence", "low": 0.8, "cap": 1.2}},
    "token mask": {"importance": {"mode": "mask", "low": 0.8, "cap": 1.2}},
    "a fixed number of spans": {"ratio": "span", "aggregate": "span", "spans_per_completion": 7},
}


@pytest.mark.parametrize("algorithm", FAMILY.values(), ids=FAMILY.keys())
def test_no_member_of_the_family_depends_on_micro_batches_or_layout(model: Any, algorithm: dict[str, Any]) -> None:
    plain, _ = measure(model, configured(10_000), batch(3, count=7, prompts=2))
    for seed in (3, 4):
        data = batch(seed, count=7, prompts=2)
        expected = measure(model, configured(10_000, **algorithm), data)
        for micro_tokens, measures in ((9, None), (25, MEASURES["all"])):
            close(measure(model, configured(micro_tokens, measures, **algorithm), data), expected)
        assert expected[0].norm() > 1e-4
    assert not torch.allclose(measure(model, configured(10_000, **algorithm), batch(3, count=7, prompts=2))[0], plain)


def test_a_fixed_number_of_spans_divides_by_it_and_the_number_of_completions(model: Any) -> None:
    data, settings = batch(3), {"ratio": "span", "aggregate": "span", "kl": {"coef": 0.0}}
    plain, _ = measure(model, configured(**settings), data)
    fixed, _ = measure(model, configured(**settings, spans_per_completion=7), data)
    spans = sum(len({int(i) for i in s.span_ids[s.mask] if i >= 0}) for s in data.samples)
    completions = sum(bool(s.mask.any()) for s in data.samples)
    torch.testing.assert_close(fixed * 7 * completions, plain * spans, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measures", MEASURES.values(), ids=MEASURES.keys())
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_measure_of_speed_changes_loss_or_gradient(model: Any, measures: dict[str, Any], attention: str) -> None:
    model.set_attn_implementation(attention)

    @MODES
    @given(seed=st.integers(0, 999), micro_tokens=st.integers(1, 90), prompts=st.integers(1, 4))
    def check(seed: int, micro_tokens: int, prompts: int) -> None:
        data = batch(seed, count=7, prompts=prompts)
        expected = measure(model, configured(10_000, ratio="span"), data)
        close(measure(model, configured(micro_tokens, measures, ratio="span"), data), expected)

    check()
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("measures", VARLEN.values(), ids=VARLEN.keys())
def test_attention_sequence_by_sequence_changes_no_loss_or_gradient(model: Any, measures: dict[str, Any]) -> None:
    @MODES
    @given(seed=st.integers(0, 999), micro_tokens=st.integers(1, 90), prompts=st.integers(1, 4))
    def check(seed: int, micro_tokens: int, prompts: int) -> None:
        data = batch(seed, count=7, prompts=prompts)
        model.set_attn_implementation("sdpa")
        expected = measure(model, configured(10_000, ratio="span"), data)
        varlen.use_varlen_attention(model)
        close(measure(model, configured(micro_tokens, measures, ratio="span"), data), expected)
        # without varlen_sequences torch's attention is used: the self-check's plain comparison runs that way
        close(measure(model, configured(micro_tokens, ratio="span"), data), expected)

    check()
    model.set_attn_implementation("sdpa")


def test_completions_of_one_prompt_do_not_see_each_other(model: Any) -> None:
    """A completion's log-probabilities do not depend on what else is in its row."""
    data = batch(2, count=6, prompts=2)
    learner = learner_of(model, configured(10_000, MEASURES["shared prompts"]))
    together = learner.logprobs(data.samples)
    for row, one in enumerate(data.samples):
        [alone] = learner.logprobs([one]).values()
        np.testing.assert_allclose(together[row], alone, atol=1e-5)
        np.testing.assert_array_equal(np.isfinite(alone), one.mask)


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_a_fully_masked_sample_changes_nothing_but_the_padding(model: Any, aggregate: str, ratio: str) -> None:
    data, long = batch(1), 30
    nothing = [math.nan] * long
    columns = {"advantages": nothing, "rollout": nothing, "proximal": nothing, "reference": nothing}
    masked = sample(range(10), range(long), mask=[False] * long, **columns)
    config = configured(10_000, aggregate=aggregate, ratio=ratio)
    close(measure(model, config, TrainBatch((*data.samples, masked), 0)), measure(model, config, data))
    alone, _ = measure(model, config, TrainBatch((masked,), 0))
    assert alone.abs().max() == 0


def slow_loss(model: Any, config: RunConfig, data: TrainBatch) -> Tensor:
    """The loss sample by sample without padding, token by token, directly from the formulas."""
    a, total = config.algorithm, torch.zeros((), dtype=torch.float64)
    trained = [[t for t in range(s.length) if s.mask[t]] for s in data.samples]
    tokens = sum(map(len, trained))
    sequences = sum(bool(on) and s.part == 0 for s, on in zip(data.samples, trained, strict=True))
    spans = sum(
        len({int(s.span_ids[t]) for t in on if s.span_ids[t] >= 0}) for s, on in zip(data.samples, trained, strict=True)
    )
    for s, on in zip(data.samples, trained, strict=True):
        ids = torch.tensor(s.token_ids.astype(np.int64)[None])
        table = model(input_ids=ids).logits[0].log_softmax(-1)
        assert s.proximal_logprobs is not None
        assert s.ref_logprobs is not None
        assert s.rollout_logprobs is not None
        new = {t: table[t - 1, int(s.token_ids[t])] for t in on}
        for t in on:
            same = [u for u in on if s.span_ids[u] == s.span_ids[t]]
            members = {"token": [t], "span": same if s.span_ids[t] >= 0 else [], "sequence": on}[a.ratio]
            log_ratio = sum((new[u] - float(s.proximal_logprobs[u]) for u in members), torch.zeros(())) / max(
                len(members), 1
            )
            ratio, advantage = torch.exp(log_ratio), float(s.advantages[t])
            clipped = min(max(ratio, torch.tensor(1 - a.clip[0])), torch.tensor(1 + a.clip[1]))
            surrogate = min(ratio * advantage, clipped * advantage)
            weight = min(math.exp(float(s.proximal_logprobs[t]) - float(s.rollout_logprobs[t])), a.importance.cap)
            d = float(s.ref_logprobs[t]) - new[t]
            loss = -weight * surrogate + a.kl.coef * (torch.exp(d) - 1 - d)
            divisor = {
                "token": tokens,
                "sequence": len(on) * sequences,
                "sequence_sum": sequences,
                "span": len(same) * spans if s.span_ids[t] >= 0 else math.inf,
                "constant": config.rollout.max_tokens * sequences,
            }[a.aggregate]
            total = total + loss / divisor
    return total


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_loss_and_gradient_agree_with_a_slow_loop_over_tokens(model: Any, aggregate: str, ratio: str) -> None:
    config = configured(30, MEASURES["all"], aggregate=aggregate, ratio=ratio)
    data = batch(7, prompts=2)
    gradient, metrics = measure(model, config, data)
    loss = slow_loss(model, config, data)
    expected = gradient_of(loss, model)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert expected.norm() > 1e-2


def dialogues(seed: int, count: int = 7, prompts: int = 2) -> TrainBatch:
    """A random off-policy batch of several turns each, with observed tokens before, between and after them.

    What comes before the first turn is shared; some samples are further sequences of a trajectory.
    """
    rng, samples = np.random.default_rng([seed, 1]), []

    def tokens(low: int, high: int) -> list[int]:
        return rng.integers(0, VOCABULARY, int(rng.integers(low, high))).tolist()

    # a prompt, and what an environment says before the first turn
    known = [(tokens(1, 5), tokens(0, 4)) for _ in range(prompts)]
    for _ in range(count):
        prompt, first = known[int(rng.integers(prompts))]
        pieces = [(False, first)]
        for _ in range(int(rng.integers(1, 4))):
            pieces += [(True, tokens(1, 5)), (False, tokens(0, 5))]
        mask = [sampled for sampled, piece in pieces for _ in piece]
        old = -math.log(VOCABULARY) + rng.normal(0, 0.3, len(mask))
        columns = {
            "advantages": rng.normal(size=len(mask)),
            "spans": [turn // 2 for turn, (_, piece) in enumerate(pieces) for _ in piece],
            "rollout": np.where(mask, old + rng.normal(0, 0.3, len(mask)), np.nan),
            "proximal": np.where(mask, old, np.nan),
            "reference": np.where(mask, old + rng.normal(0, 0.5, len(mask)), np.nan),
        }
        completion = [token for _, piece in pieces for token in piece]
        samples.append(sample(prompt, completion, mask=mask, part=int(rng.integers(4) == 0), **columns))
    return TrainBatch(tuple(samples), 0)


def plainly(model: Any, one: TrainSample) -> np.ndarray:
    """Log-probabilities of a sample's trained tokens by a pass over it alone."""
    with torch.no_grad():
        table = model(input_ids=torch.tensor(one.token_ids.astype(np.int64)[None])).logits[0].log_softmax(-1)
    found = table[:-1].gather(-1, torch.tensor(one.token_ids[1:].astype(np.int64))[:, None])[:, 0].numpy()
    return np.where(one.mask, np.concatenate([[np.nan], found]), np.nan)


def gradient_of(loss: Tensor, model: Any) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("measures", [*MEASURES.values(), *VARLEN.values()], ids=[*MEASURES.keys(), *VARLEN.keys()])
@pytest.mark.parametrize("ratio", LEVELS)
def test_observed_tokens_are_read_and_not_trained_on_in_any_layout(
    model: Any, measures: dict[str, Any], ratio: str
) -> None:
    """Losses, gradients and log-probabilities of several turns are those of plain torch, summed over the mask alone."""

    @MODES
    @given(seed=st.integers(0, 999), micro_tokens=st.integers(1, 120), prompts=st.integers(1, 4))
    def check(seed: int, micro_tokens: int, prompts: int) -> None:
        data = dialogues(seed, prompts=prompts)
        model.set_attn_implementation("sdpa")
        config = configured(1, ratio=ratio, aggregate="span")
        one_by_one = measure(model, config, data)
        loss = slow_loss(model, config, data)
        assert one_by_one[1]["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        torch.testing.assert_close(one_by_one[0], gradient_of(loss, model), rtol=1e-3, atol=1e-6)
        assert one_by_one[0].norm() > 1e-3
        close(measure(model, configured(10_000, ratio=ratio, aggregate="span"), data), one_by_one)
        expected = [plainly(model, one) for one in data.samples]
        if "attention" in measures:
            varlen.use_varlen_attention(model)
        own = configured(micro_tokens, measures, ratio=ratio, aggregate="span")
        close(measure(model, own, data), one_by_one)
        found = learner_of(model, own).logprobs(data.samples)
        for number, values in enumerate(expected):
            np.testing.assert_allclose(found[number], values, atol=1e-5)  # NaN at the same places

    check()
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_loss_and_gradient_of_several_turns_agree_with_a_slow_loop_over_tokens(
    model: Any, aggregate: str, ratio: str
) -> None:
    config = configured(40, MEASURES["all"], aggregate=aggregate, ratio=ratio)
    data = dialogues(3)
    assert any(one.part > 0 for one in data.samples)
    gradient, metrics = measure(model, config, data)
    loss = slow_loss(model, config, data)
    expected = gradient_of(loss, model)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert expected.norm() > 1e-2


def test_an_observed_token_changes_what_is_predicted_after_it_and_nothing_before_it(model: Any) -> None:
    ids, mask = [5, 6, 20, 7, 8], [True, True, False, True, True]
    one, other = (sample([1, 2], [*ids[:2], seen, *ids[3:]], mask=mask) for seen in (20, 21))
    learner = learner_of(model, configured(10_000, MEASURES["all"]))
    found = learner.logprobs([one, other])
    np.testing.assert_allclose(found[0][:4], found[1][:4], atol=1e-6)
    assert np.isnan([found[0][4], found[1][4]]).all()
    assert (np.abs(found[0][5:] - found[1][5:]) > 1e-3).all()


def test_the_pre_pass_covers_every_row_and_its_ratio_is_one(model: Any) -> None:
    data = batch(3)
    found = learner_of(model, configured(13)).logprobs(data.samples)
    assert sorted(found) == list(range(len(data.samples)))
    whole = learner_of(model, configured(10_000)).logprobs(data.samples)
    for row, one in enumerate(data.samples):
        np.testing.assert_array_equal(np.isfinite(found[row]), one.mask)
        np.testing.assert_allclose(found[row], whole[row], atol=1e-5)
    bare = without(data, "proximal_logprobs", "ref_logprobs")
    _, metrics = measure(model, configured(20), filled(bare, proximal_logprobs=found, ref_logprobs=found))
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-4)
    assert (metrics["clip_frac/low"], metrics["clip_frac/high"]) == (0.0, 0.0)


def without(data: TrainBatch, *names: str) -> TrainBatch:
    return TrainBatch(tuple(dataclasses.replace(s, **dict.fromkeys(names)) for s in data.samples), data.step)


def filled(data: TrainBatch, **columns: Mapping[int, np.ndarray]) -> TrainBatch:
    samples = Samples.of(data.samples)
    for name, values in columns.items():
        samples.fill(name, values)
    return TrainBatch(tuple(samples), data.step)


@pytest.mark.parametrize("present", [0, 2])
def test_missing_proximal_logprobs_are_those_of_the_policy(model: Any, present: int) -> None:
    """If no sample has old log-probabilities, and if only some have none."""
    data = batch(4)
    bare = without(data, "proximal_logprobs")
    bare = TrainBatch((*data.samples[:present], *bare.samples[present:]), 0)
    found = learner_of(model, configured()).logprobs(bare.samples)
    close(measure(model, configured(17), bare), measure(model, configured(17), filled(bare, proximal_logprobs=found)))
