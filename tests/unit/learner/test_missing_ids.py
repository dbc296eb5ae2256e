"""Rows of the head that no token belongs to. Not covered: vLLM (tests/integration), ZeRO stage 3."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpost.data.models import load, save_folder
from rlpost.errors import SelfCheckError
from rlpost.learner.build import build_learner
from rlpost.types import TrainBatch
from support import recorded
from support.recorded import config as configured

CPU = torch.device("cpu")
TORCH = {"engine": "torch", "micro_tokens": 40}


def with_rows(tiny_model: str, folder: Path, more: int = 32) -> str:
    """The tiny model with more rows of embeddings than its tokenizer has ids."""
    model = load(tiny_model, "float32")
    model.resize_token_embeddings(model.config.vocab_size + more, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[-more:] = 3 * torch.randn(more, model.config.hidden_size)
    save_folder(model, dict(model.named_parameters()), tiny_model, folder)
    return str(folder)


@pytest.mark.parametrize("chunk", [None, 4])
def test_rows_without_a_token_are_no_part_of_the_distribution(
    tiny_model: str, tmp_path: Path, chunk: int | None
) -> None:
    """With them the model is another, but its log-probabilities are the same; and they are never moved."""
    config = {"learner": {**TORCH, "logprob_chunk": chunk}}
    plain = build_learner(configured(tiny_model, **config), tiny_model, CPU)
    folder = with_rows(tiny_model, tmp_path / "model")
    learner = build_learner(configured(folder, **config), folder, CPU)
    for reference in (False, True):
        expected = plain.logprobs(recorded.batch().samples, reference=reference)
        for row, values in learner.logprobs(recorded.batch().samples, reference=reference).items():
            np.testing.assert_allclose(values, expected[row], atol=1e-5)
    before = learner.engine.module.model.get_input_embeddings().weight[-32:].detach().clone()
    assert learner.step(recorded.batch())["grad_norm"] == pytest.approx(
        plain.step(recorded.batch())["grad_norm"], rel=1e-4
    )
    assert torch.equal(learner.engine.module.model.get_input_embeddings().weight[-32:], before)


def test_a_sampled_id_that_the_tokenizer_lacks_is_never_trained_on(tiny_model: str, tmp_path: Path) -> None:
    folder = with_rows(tiny_model, tmp_path / "model")
    learner = build_learner(configured(folder, learner=TORCH), folder, CPU)
    data = recorded.batch()
    ids = data.samples[1].token_ids.copy()
    place = int(np.flatnonzero(data.samples[1].mask)[0])
    ids[place] = 70
    samples = list(data.samples)
    samples[1] = dataclasses.replace(samples[1], token_ids=ids)
    with pytest.raises(
        SelfCheckError, match="sample 1 is to be trained on token 70, which the model's tokenizer lacks"
    ):
        learner.step(TrainBatch(tuple(samples), 0))
    # not trained, as in a prompt, it may stand
    ids[0], ids[place] = 70, data.samples[1].token_ids[place]
    assert np.isfinite(learner.logprobs(samples)[1][samples[1].mask]).all()
