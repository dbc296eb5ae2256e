"""Bugs of the path from samples to gradients, planted one by one into a loop of this process, in both dtypes.

    pytest -s tests/unit/loop/test_trained_tokens.py

prints which check ends the run, and at which step. The same bugs are planted into runs with Ray and vLLM in
tests/ray/test_planted_failures.py.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.errors import SelfCheckError
from rlpost.loop.sync import collect, learn, publish
from support.local_run import LocalRun, configured, peaked
from support.sabotage import trained_tokens
from support.tiny_run import JUDGE

pytestmark = pytest.mark.usefixtures("one_thread")

HALVES = {"rewards": [{"name": "outcome"}, {"name": f"{JUDGE}:Halves"}]}
TWO_STAGES = {"rewards": [{"name": "outcome"}, {"name": "outcome"}]}
TWICE = {"epochs": 2, "minibatches": 2}


@pytest.fixture(scope="module")
def model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return peaked(tiny_model, tmp_path_factory.mktemp("peaked") / "model")


def planted(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[Any], None]:
    """Plant a bug; returns what is to be done to the engine."""
    monkeypatch.setattr(trained_tokens, "put", monkeypatch.setattr)
    place, plant = trained_tokens.PLACES[name]
    if place == trained_tokens.VLLM:
        return lambda engine: plant(_Module(type(engine)))
    plant(importlib.import_module(place))
    return lambda engine: None


class _Module:
    def __init__(self, engine: type):
        self.TransformersEngine = engine


class Changed:
    """A model whose logits an engine sees changed, as penalties and truncation change them."""

    def __init__(self, model: Any, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]):
        self.model, self.change = model, change
        self.seen = torch.zeros(0, 0)

    def __call__(self, ids: torch.Tensor, past_key_values: Any = None, **options: Any) -> Any:
        fresh = past_key_values is None
        self.seen = ids if fresh else torch.cat([self.seen, ids], 1)
        output = self.model(ids, past_key_values=past_key_values, **options)
        output.logits = self.change(output.logits.clone(), self.seen)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def penalised(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """A repetition penalty of 1.3, as vLLM applies it."""
    for row, ids in enumerate(seen):
        known = logits[row, -1, ids.unique()]
        logits[row, -1, ids.unique()] = torch.where(known > 0, known / 1.3, known * 1.3)
    return logits


def nucleus(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Top-p of 0.7 at the temperature of the runs here."""
    probabilities = (logits[:, -1].float() / 0.8).softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    cut = ordered.cumsum(-1) - ordered >= 0.7
    for row in range(len(logits)):
        logits[row, -1, order[row][cut[row]]] = -torch.inf
    return logits


def endless(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """No end token."""
    logits[:, -1, END] = -torch.inf
    return logits


END = 1
LOGITS = {"engine_repetition_penalty": penalised, "engine_top_p": nucleus, "engine_without_end": endless}


def first_error(run: LocalRun, steps: int) -> tuple[int, str]:
    """The step at which a run ends, and the line with which it does; -1 and nothing if it goes on."""
    step = 0
    try:
        run.session.publish()
        for step in range(steps):
            scored = collect(run.session, step)
            publish(run.session, learn(run.session, scored), scored.timer)
    except SelfCheckError as error:
        return step, str(error)
    return -1, ""


CAUGHT = [
    ("learner_at_temperature_one", {}, ("invariance", "mismatch")),
    ("engine_without_temperature", {}, ("mismatch",)),
    ("engine_repetition_penalty", {}, ("mismatch",)),
    ("prompt_of_another_group", {}, ("mismatch",)),
    ("first_token_missing", {}, ("mismatch",)),
    ("proximal_follows_policy", {"algorithm": TWICE}, ("independent: the proximal", "mismatch")),
    ("engine_top_p", {}, ("mismatch",)),
    ("last_token_masked", {}, ("invariance", "independent")),
    ("end_token_masked", {}, ("invariance", "independent")),
    ("advantage_sign_of_one_index", {"scoring": HALVES}, ("credit",)),
    ("rewards_reversed_in_credit", {}, ("credit",)),
    ("rewards_reversed_in_scoring", {}, ("scoring",)),
    ("one_seed_per_group", {}, ("samples",)),
    ("same_seeds_each_step", {}, ("samples",)),
    ("same_prompts_each_step", {}, ("samples",)),
    ("kl_sign_turned", {"algorithm": {"kl": {"coef": 0.1}}}, ("independent",)),
    ("verdicts_shuffled", {}, ("scoring",)),
    ("logprobs_one_late", {}, ("mismatch", "canary")),
    ("engine_without_end", {}, ("mismatch",)),
    ("reference_at_temperature_one", {"algorithm": {"kl": {"coef": 0.1}}}, ("independent",)),
    ("sample_trained_twice", {}, ("independent",)),
    ("divided_by_micro_batch", {}, ("invariance", "independent")),
    ("advantages_one_early", {"scoring": HALVES}, ("invariance", "independent")),
    ("gradient_ascent", {}, ("optimizer",)),
    ("learning_rate_not_set", {"optimizer": {"warmup_steps": 5}}, ("optimizer",)),
    ("optimizer_owns_half", {}, ("optimizer",)),
    ("gradients_not_cleared", {"algorithm": TWICE}, ("optimizer", "invariance")),
    ("every_second_update_lost", {"algorithm": TWICE}, ("canary",)),
    ("reference_is_policy", {"algorithm": {"kl": {"coef": 0.1}}}, ("independent",)),
    ("micro_batch_repeats_sample", {}, ("independent",)),
    ("filter_turned", {"algorithm": {"filter": "binary"}}, ("credit",)),
    ("first_stage_skipped", {"scoring": TWO_STAGES}, ("scoring",)),
    ("cut_answers_paid", {"scoring": {"truncated": "reject"}}, ("endings",)),
    ("cut_answers_named_done", {}, ("endings",)),
    ("done_answers_named_cut", {}, ("endings",)),
    ("shorter_answers", {}, ("endings",)),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("bug", "sections", "checks"), CAUGHT, ids=[name for name, _, _ in CAUGHT])
def test_a_planted_bug_ends_the_run(
    model: str, monkeypatch: pytest.MonkeyPatch, bug: str, sections: dict[str, Any], checks: tuple[str, ...], dtype: str
) -> None:
    config = configured(model, f"{JUDGE}:names_a_hypothesis", model={"dtype": dtype}, **sections)
    if bug in LOGITS:

        def broken(engine: Any) -> None:
            plain, changed, sample = engine.model, Changed(engine.model, LOGITS[bug]), engine._sample

            def sampled(requests: Any, settings: Any) -> Any:
                engine.model = changed if settings.temperature else plain
                return sample(requests, settings)

            engine._sample = sampled
    else:
        broken = planted(monkeypatch, bug)
    step, line = first_error(LocalRun(config, broken), 6)
    print(f"\n{bug} {dtype}: step {step}: {line}")
    assert step >= 0, "the run went on"
    assert line.startswith(checks), line


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_that_does_not_say_how_it_samples_is_found_by_how_little_its_samples_surprise(
    model: str, dtype: str
) -> None:
    """It samples from the nucleus of 0.7, and reports the log-probabilities of the full distribution."""

    def broken(engine: Any) -> None:
        plain, changed, sample = engine.model, Changed(engine.model, nucleus), engine._sample

        def sampled(requests: Any, settings: Any) -> Any:
            engine.model = changed if settings.temperature else plain
            found = sample(requests, settings)
            engine.model = plain
            return [honest(*pair) for pair in zip(requests, found, strict=True)] if settings.temperature else found

        def honest(request: Any, one: Any) -> Any:
            ids = torch.tensor(np.concatenate([request.token_ids, one.token_ids])).long()[None]
            with torch.no_grad():
                logp = (plain(ids).logits[0].float() / 0.8).log_softmax(-1)
            places = torch.arange(len(request.token_ids), ids.shape[1])
            return dataclasses.replace(one, logprobs=logp[places - 1, ids[0, places]].numpy())

        engine._sample = sampled

    config = configured(model, f"{JUDGE}:names_a_hypothesis", model={"dtype": dtype}, optimizer={"lr": 1e-5})
    step, line = first_error(LocalRun(config, broken), 16)
    print(f"\nunsaid top-p {dtype}: step {step}: {line}")
    assert step > 0
    assert "the engine samples more sharply (temperature, top-p, greedy)" in line


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"algorithm": {**TWICE, "kl": {"coef": 0.05}}},
        {"scoring": HALVES, "algorithm": {"ratio": "span", "aggregate": "span", **TWICE}},
        {"algorithm": {"filter": "binary", "filter_batches": 3}},
        {"algorithm": {"recipe": "dapo"}, "scoring": {"truncated": "mask"}},
        {"algorithm": {"recipe": "maxrl", "focal_gamma": 0.5, **TWICE}},
        {"algorithm": {"importance": {"mode": "mask", "level": "sequence", "cap": 3.0}, "std": "batch"}},
        {"tuning": {"method": "lora"}, "algorithm": TWICE, "sync": {"kind": "full"}},
        {"rollout": {"group_size": 2, "max_tokens": 1}, "optimizer": {"lr": 1e-2}},
    ],
    ids=str,
)
def test_a_healthy_run_is_quiet(model: str, sections: dict[str, Any], dtype: str) -> None:
    config = configured(model, f"{JUDGE}:names_a_hypothesis", model={"dtype": dtype}, **sections)
    run = LocalRun(config)
    found = run.steps(6)
    assert max(step.metrics.get("mismatch", 0.0) for step in found) < (1e-5 if dtype == "float32" else 0.02)
    # answers of one token name no hypothesis, so there is nothing to follow
    assert run.session.checks.traced >= 2 or config.rollout.max_tokens == 1
