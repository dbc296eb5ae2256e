"""The gradient comparison by hand, and planted failures of a real learner in plain torch.

Not covered: DeepSpeed and several ranks (tests/integration/test_learner_equivalence.py).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.errors import SelfCheckError
from rlpost.learner import collate
from rlpost.learner.build import build_learner
from rlpost.learner.gradient_check import COLUMNS, project
from rlpost.learner.policy import PolicyLearner
from rlpost.learner.torch_engine import TorchEngine
from rlpost.plugins.algorithm import BoundLoss
from rlpost.selfcheck.invariance import check, difference
from rlpost.types import GradientFigures, GradientSketch, TrainBatch
from support import recorded
from support.trajectories import plain

CPU = torch.device("cpu")


def print_of(*values: float, loss: float = 0.0) -> GradientSketch:
    return GradientSketch(loss, {"a": np.float32(values[:2]), "b": np.float32(values[2:])})


def test_the_difference_by_hand() -> None:
    # (3, 4 | 0) and (3, 0 | 0): ‖g - r‖ = 4, ‖r‖ = 3, ⟨g, r⟩ / ⟨r, r⟩ = 9 / 9
    assert difference(print_of(3, 4, 0), print_of(3, 0, 0)) == (pytest.approx(4 / 3), 1.0, "a")
    assert difference(print_of(1, 1, 4), print_of(2, 2, 8)) == (0.5, 0.5, "b")
    assert difference(print_of(0, 0, 0), print_of(0, 0, 0))[:2] == (0.0, 1.0)
    assert difference(print_of(1, 0, 0), print_of(0, 0, 0))[0] == math.inf
    # a tensor that one side lacks is zero there
    lacking = GradientSketch(0.0, {"a": np.float32([3, 0])})
    assert difference(lacking, print_of(3, 0, 4)) == (pytest.approx(0.8), pytest.approx(9 / 25), "b")


def test_messages_name_the_comparison_the_figures_and_the_remedy() -> None:
    good, half, other = print_of(3, 4, 12, loss=1.0), print_of(1.5, 2, 6, loss=1.0), print_of(3, 4, 0, loss=1.0)
    assert check(GradientFigures(8, good, good, good), "float32") == {
        "invariance/micro_batching": 0.0,
        "invariance/reference": 0.0,
    }
    assert check(GradientFigures(8, good, good, None), "float32") == {"invariance/micro_batching": 0.0}
    for figures, expected in [
        (
            GradientFigures(8, half, half, good),
            "the gradient of the learner is 0.5 times that of plain torch (8 samples, ",
        ),
        (GradientFigures(8, half, good, good), "as this run lays them out is 0.5 times that one sample at a time"),
        (GradientFigures(8, other, good, good), "is not that one sample at a time, above all for 'b'"),
        (GradientFigures(8, print_of(math.nan, 0, 0), good, good), "is not that one sample at a time"),
        (
            GradientFigures(8, dataclasses.replace(good, loss=0.5), good, good),
            "the loss as this run lays them out is 0.5, and 1",
        ),
        (GradientFigures(8, good, good, dataclasses.replace(good, loss=math.nan)), "and nan of plain torch"),
    ]:
        with pytest.raises(SelfCheckError) as caught:
            check(figures, "float32")
        assert expected in str(caught.value)
        assert "selfcheck.invariance: false" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_projection_is_linear_keeps_small_tensors_and_nearly_keeps_products() -> None:
    rng = torch.Generator().manual_seed(0)
    small = torch.randn(COLUMNS, generator=rng)
    assert np.abs(project([("w", small)])["w"]) == pytest.approx(small.abs().numpy())
    a, b = (torch.randn(70, 999, generator=rng) for _ in range(2))
    one, two, both = (project([("w", x)])["w"] for x in (a, b, a + b))
    assert one.shape == (COLUMNS,)
    np.testing.assert_allclose(one + two, both, atol=1e-4)
    assert float(one @ one) == pytest.approx(float((a * a).sum()), rel=0.1)
    assert abs(float(one @ two)) < 0.1 * float((a * a).sum())
    # a change in one of 70,000 gradient entries is detected
    c = a.clone()
    c[3, 5] += 1
    assert np.linalg.norm(project([("w", c)])["w"] - one) == pytest.approx(1.0, rel=1e-3)


def learner_of(folder: str, **learner: Any) -> PolicyLearner:
    settings = {"engine": "torch", "micro_tokens": 4096, **learner}
    return build_learner(recorded.config(folder, learner=settings), folder, CPU)


@pytest.mark.parametrize("settings", [{}, {"layout": "padded"}, {"micro_tokens": 30}, {"logprob_chunk": None}])
def test_a_sound_learner_passes_and_trains_as_if_it_had_not_been_examined(
    tiny_model: str, settings: dict[str, Any]
) -> None:
    examined, other = learner_of(tiny_model, **settings), learner_of(tiny_model, **settings)
    data = recorded.grouped()
    figures = examined.examine(data, plain(data.samples))
    assert figures is not None
    assert figures.samples == 8
    assert figures.own.norm > 0.01
    metrics = check(figures, "float32")
    assert metrics.keys() == {"invariance/micro_batching", "invariance/reference"}
    assert max(metrics.values()) < 1e-4
    for learner in (examined, other):
        learner.step(recorded.grouped())
        learner.step(recorded.batch())
    held = dict(examined.weights())
    assert all(torch.equal(held[name], tensor) for name, tensor in other.weights())
    assert examined.counters == other.counters


def failure(learner: PolicyLearner, data: TrainBatch | None = None) -> str:
    data = data or recorded.grouped()
    figures = learner.examine(data, plain(data.samples))
    assert figures is not None
    with pytest.raises(SelfCheckError) as caught:
        check(figures, "float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_engine_that_halves_the_loss_is_found(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = TorchEngine.backward
    monkeypatch.setattr(TorchEngine, "backward", lambda self, loss, last: sound(self, loss * 0.5, last))
    message = failure(learner_of(tiny_model))
    assert message.startswith("invariance: the gradient of the learner is 0.5 times that of plain torch (8 samples, ")
    assert "set learner.zero_stage: 0 or learner.engine: torch" in message


def test_a_loss_averaged_over_micro_batches_is_found(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of eight micro-batches against one of two: four times as much."""
    sound = BoundLoss.__call__

    def averaged(self: Any, inputs: Any, counts: Any) -> Any:
        loss, sums = sound(self, inputs, counts)
        return loss * len(inputs.mask) / 8, sums

    monkeypatch.setattr(BoundLoss, "__call__", averaged)
    message = failure(learner_of(tiny_model))
    assert "the gradient as this run lays them out is 4 times that one sample at a time" in message


def test_completions_that_see_each_other_are_found(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = collate.visible
    monkeypatch.setattr(collate, "visible", lambda segment, branch: sound(segment, np.minimum(branch, 0)))
    message = failure(learner_of(tiny_model))
    assert "the gradient as this run lays them out is not that one sample at a time, above all for 'model" in message
    assert "set learner.layout: padded and learner.logprob_chunk: null" in message


def test_a_chunk_that_is_dropped_is_found(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlpost.learner import logprob_model

    sound = logprob_model.chunked_logprobs

    def dropping(
        hidden: torch.Tensor, head: Any, ids: torch.Tensor, temperature: float, chunks: int, excluded: Any
    ) -> Any:
        found = sound(hidden, head, ids, temperature, chunks, excluded)
        return found if chunks == 1 else torch.cat([found[:-4], found[-4:].detach()])

    monkeypatch.setattr(logprob_model, "chunked_logprobs", dropping)
    assert "the gradient as this run lays them out is not that one sample at a time" in failure(learner_of(tiny_model))
