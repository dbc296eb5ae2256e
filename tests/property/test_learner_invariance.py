"""The gradient of the whole learner path is a property of the batch, on a small real Llama.

Not covered: several ranks and sharding (tests/integration), bfloat16.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlpost.config.load import from_dict
from rlpost.config.schema import OptimizerSection, RunConfig
from rlpost.data.packing import Update
from rlpost.learner.models import ScoringModel
from rlpost.learner.policy import PolicyLearner
from rlpost.learner.torch_engine import TorchEngine
from rlpost.types import TrainBatch, TrainSample

VOCABULARY = 64
AGGREGATIONS = ("token", "sequence", "sequence_sum", "span", "constant")
LEVELS = ("token", "span", "sequence")
MODES = settings(deadline=None, derandomize=True, max_examples=10)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def configured(micro_tokens: int = 64, **algorithm: Any) -> RunConfig:
    return from_dict(
        {
            "model": {"path": "m", "dtype": "float32"},
            "scoring": {"verifier": "function"},
            "rollout": {"max_tokens": 16},
            "learner": {"engine": "torch", "micro_tokens": micro_tokens},
            "algorithm": {
                "kl": {"coef": 0.05},
                "importance": {"mode": "truncate"},
                "clip": [0.2, 0.3],
                **algorithm,
            },
        }
    )


def batch(seed: int, count: int = 5) -> TrainBatch:
    """Off-policy on purpose: an on-policy loss is near zero whatever is wrong with it."""
    rng, samples = np.random.default_rng(seed), []
    for _ in range(count):
        prompt, size = int(rng.integers(1, 6)), int(rng.integers(1, 9))
        old = (-math.log(VOCABULARY) + rng.normal(0, 0.3, size)).astype(np.float32)
        mask = rng.random(size) > 0.2
        samples.append(
            TrainSample(
                prompt_ids=rng.integers(0, VOCABULARY, prompt),
                completion_ids=rng.integers(0, VOCABULARY, size),
                advantages=rng.normal(size=size).astype(np.float32),
                span_ids=np.sort(rng.integers(-1, 3, size)),
                mask=mask,
                engine_logprobs=(old + rng.normal(0, 0.3, size)).astype(np.float32),
                policy_version=0,
                old_logprobs=old,
                ref_logprobs=(old + rng.normal(0, 0.5, size)).astype(np.float32),
            )
        )
    return TrainBatch(tuple(samples), 0)


def measure(
    model: Any, config: RunConfig, data: TrainBatch, update: Update | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The accumulated gradient of an update, flat, and its metrics."""
    model.zero_grad(set_to_none=True)
    engine = TorchEngine(ScoringModel(model), OptimizerSection(), torch.device("cpu"))
    learner = PolicyLearner(engine, None, config)
    [planned] = learner.plan(data)
    metrics = learner.accumulate(data, update or planned)
    return torch.cat([gradient.flatten() for gradient in engine.gradients().values()]), metrics


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
        # any way of dealing the rows out, empty micro-batches included
        cut = shuffle.randint(0, len(rows))
        dealt = Update(tuple(rows), (((), tuple(rows[:cut]), (), tuple(rows[cut:])),))
        close(measure(model, configured(10_000, **algorithm), data, dealt), expected)
        assert expected[0].norm() > 1e-4 or not any(s.mask.any() for s in data.samples)

    check()


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("ratio", LEVELS)
def test_a_fully_masked_sample_changes_nothing_but_the_padding(model: Any, aggregate: str, ratio: str) -> None:
    data, long = batch(1), 30
    nothing = np.full(long, np.nan, np.float32)
    masked = TrainSample(
        np.arange(10),
        np.arange(long),
        nothing,
        np.zeros(long, np.int64),
        np.zeros(long, bool),
        nothing,
        0,
        nothing,
        nothing,
    )
    config = configured(10_000, aggregate=aggregate, ratio=ratio)
    close(measure(model, config, TrainBatch((*data.samples, masked), 0)), measure(model, config, data))
    alone, _ = measure(model, config, TrainBatch((masked,), 0))
    assert alone.abs().max() == 0


def slow_loss(model: Any, config: RunConfig, data: TrainBatch) -> Tensor:
    """Sample by sample without padding, token by token, straight from the formulas."""
    a, total = config.algorithm, torch.zeros((), dtype=torch.float64)
    trained = [[t for t in range(len(s.mask)) if s.mask[t]] for s in data.samples]
    tokens, sequences = sum(map(len, trained)), sum(bool(t) for t in trained)
    spans = sum(
        len({int(s.span_ids[t]) for t in on if s.span_ids[t] >= 0}) for s, on in zip(data.samples, trained, strict=True)
    )
    for s, on in zip(data.samples, trained, strict=True):
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.completion_ids])[None])
        table = model(input_ids=ids).logits[0].log_softmax(-1)
        assert s.old_logprobs is not None
        assert s.ref_logprobs is not None
        assert s.engine_logprobs is not None
        new = [table[len(s.prompt_ids) - 1 + t, int(s.completion_ids[t])] for t in range(len(s.mask))]
        for t in on:
            same = [u for u in on if s.span_ids[u] == s.span_ids[t]]
            members = {"token": [t], "span": same if s.span_ids[t] >= 0 else [], "sequence": on}[a.ratio]
            log_ratio = sum((new[u] - float(s.old_logprobs[u]) for u in members), torch.zeros(())) / max(
                len(members), 1
            )
            ratio, advantage = torch.exp(log_ratio), float(s.advantages[t])
            clipped = min(max(ratio, torch.tensor(1 - a.clip[0])), torch.tensor(1 + a.clip[1]))
            surrogate = min(ratio * advantage, clipped * advantage)
            weight = min(math.exp(float(s.old_logprobs[t]) - float(s.engine_logprobs[t])), a.importance.cap)
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
    config, data = configured(30, aggregate=aggregate, ratio=ratio), batch(7)
    gradient, metrics = measure(model, config, data)
    loss = slow_loss(model, config, data)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert expected.norm() > 1e-2


def test_the_pre_pass_covers_every_row_and_its_ratio_is_one(model: Any) -> None:
    data = batch(3)
    engine = TorchEngine(ScoringModel(model), OptimizerSection(), torch.device("cpu"))
    learner = PolicyLearner(engine, None, configured(13))
    found = learner.logprobs(data.samples)
    assert sorted(found) == list(range(len(data.samples)))
    whole = PolicyLearner(engine, None, configured(10_000)).logprobs(data.samples)
    for row, sample in enumerate(data.samples):
        assert found[row].shape == sample.completion_ids.shape
        np.testing.assert_allclose(found[row], whole[row], atol=1e-5)
    old = [found[row] for row in range(len(found))]
    ready = learner.prepare(data, old, [v + 0.0 for v in old])
    _, metrics = measure(model, configured(20), ready)
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-4)
    assert (metrics["clip_low"], metrics["clip_high"]) == (0.0, 0.0)


def test_missing_old_logprobs_are_those_of_the_policy(model: Any) -> None:
    data = batch(4)
    bare = TrainBatch(tuple(dataclasses.replace(s, old_logprobs=None) for s in data.samples), 0)
    engine = TorchEngine(ScoringModel(model), OptimizerSection(), torch.device("cpu"))
    found = PolicyLearner(engine, None, configured()).logprobs(bare.samples)
    filled = TrainBatch(tuple(dataclasses.replace(s, old_logprobs=found[i]) for i, s in enumerate(bare.samples)), 0)
    close(measure(model, configured(17), bare), measure(model, configured(17), filled))
