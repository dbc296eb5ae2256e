"""Runs under `rollout.constraint` in this process: engine and learner agree, and bugs between them end the run.

    pytest -s tests/unit/loop/test_constrained_run.py

prints which check ends the run, and at which step. Not covered: vLLM (tests/integration/test_vllm_engine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlpost.algorithms import allowed as algorithms
from rlpost.config.differences import declared
from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig, ScratchModel
from rlpost.data import bpe, models
from rlpost.data.constraint import check_constraint, constraint_of
from rlpost.data.tokenizer import TextCodec
from rlpost.errors import ConfigError, SelfCheckError, UserError
from rlpost.learner import logprob_model
from rlpost.loop.sync import collect, learn, publish
from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.constraint import ListWalk
from rlpost_verifiers.catalog.items import load_catalog
from rlpost_verifiers.catalog.verifier import CatalogVerifier
from support.local_run import LocalRun, configured, peaked
from support.tiny_run import JUDGE

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, ITEMS = 3, 12
TWICE = {"epochs": 2, "minibatches": 2, "kl": {"coef": 0.1}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained model whose tokenizer has pieces of film titles."""
    folder, names = tmp_path_factory.mktemp("films"), [item.name for item in load_catalog(None).head(ITEMS).items]
    size = bpe.build([f"{name}\n" for name in names] * 3, folder / "plain", 256, 384)
    scratch = ScratchModel(hidden_size=64, heads=2, layers=2, max_positions=256)
    models.build_scratch(scratch, size, folder / "plain", seed=1)
    return peaked(str(folder / "plain"), folder / "peaked")


def config_of(folder: str, dtype: str = "float32", **sections: Any) -> RunConfig:
    constraint = {"name": "catalog_list", "size": SIZE, "items": ITEMS}
    rollout = {"constraint": constraint, "max_tokens": 90, **sections.pop("rollout", {})}
    return configured(folder, f"{JUDGE}:begins_early", model={"dtype": dtype}, rollout=rollout, **sections)


def outcome(run: LocalRun, steps: int) -> tuple[int, str, list[Any]]:
    """The step at which a run ends and the line with which it does, or -1 and nothing; and the steps it made."""
    step, made = 0, list[Any]()
    try:
        run.session.publish()
        for step in range(steps):
            scored = collect(run.session, step)
            made.append(learn(run.session, scored))
            publish(run.session, made[-1], scored.timer)
    except SelfCheckError as error:
        return step, str(error), made
    return -1, "", made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"algorithm": TWICE},
        {"learner": {"layout": "padded", "logprob_chunk": 5}},
        {"rollout": {"temperature": 0.6}},
    ],
    ids=["packed", "kl and two passes", "padded in chunks", "temperature"],
)
def test_engine_and_learner_score_the_same_policy(model: str, dtype: str, sections: dict[str, Any]) -> None:
    config = config_of(model, dtype, **sections)
    step, line, made = outcome(LocalRun(config), 3)
    assert (step, line) == (-1, "")
    assert len(made) == 3
    figures = made[0].metrics
    assert figures["mismatch"] < (2e-6 if dtype == "float32" else 0.1)
    # gaps between ways to the gradient, of which one takes the constraint by its definition
    assert 0 < figures["entropy"] < np.log(ITEMS)


def test_answers_are_lists_of_distinct_items(model: str) -> None:
    config = config_of(model)
    run, codec = LocalRun(config), TextCodec(model)
    judge = CatalogVerifier(items=ITEMS, relevant_required=False)
    run.session.publish()
    groups = collect(run.session, 0).groups
    trajectories = [one for group in groups for one in group.tokens]
    assert {one.status for one in trajectories} == {"done"}
    answers = [codec.text(one.token_ids[one.mask].tolist()) for one in trajectories]
    assert len(set(answers)) > 6
    for verdict in judge.verify_batch([VerifyItem({}, text) for text in answers]):
        assert [item.reason for item in verdict.items] == ["in_catalog"] * SIZE


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_log_probabilities_are_those_of_a_dense_mask(model: str, reference: bool, temperature: float | None) -> None:
    """Policy and reference, against the logits of the plain model and the constraint's definition."""
    run = LocalRun(config_of(model, algorithm={"kl": {"coef": 0.1}}))
    run.session.publish()
    one = collect(run.session, 0).groups[0].tokens[1]
    constraint, learner = constraint_of(run.config, model), run.session.learner
    assert constraint is not None
    assert learner is not None
    (found,) = learner.logprobs([one], reference=reference, temperature=temperature)
    answer = one.token_ids[one.mask].tolist()
    with torch.no_grad():
        logits = (
            models.load(model, "float32")(torch.from_numpy(one.token_ids.astype(np.int64))[None]).logits[0].double()
        )
    for place, token in enumerate(answer):
        kept = constraint.allowed(answer[:place])
        row = logits[one.prompt_tokens + place - 1] / (temperature or run.config.rollout.temperature)
        expected = row[token] - torch.logsumexp(row[torch.from_numpy(kept.astype(np.int64))], 0)
        assert found[one.prompt_tokens + place] == pytest.approx(float(expected), abs=2e-5)
    (free,) = learner.logprobs([one], reference=reference, temperature=temperature, constrained=False)
    assert (free[one.mask] < found[one.mask] - 1e-3).any(), "probes are scored by the full softmax"


class Shorter:
    """A constraint that ends lists one item early."""

    def __init__(self, config: RunConfig, folder: str):
        tree = config.model_dump(mode="json")
        tree["rollout"]["constraint"]["size"] = SIZE - 1
        self.own = constraint_of(from_dict(tree), folder)

    def walk(self) -> Any:
        return self.own.walk()  # type: ignore[union-attr]


class Forgetful(ListWalk):
    """A walk that allows items again."""

    def _begin(self) -> None:
        super()._begin()
        self._used = []


class Narrow(ListWalk):
    """A walk that leaves out the last of several tokens, on both sides."""

    def allowed(self) -> np.ndarray:
        found = super().allowed()
        return found[:-1] if len(found) > 3 else found


def unmasked_learner(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.session.learner.own.passes.constraint = None  # type: ignore[union-attr]


def unmasked_engine(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = type("Free", (), {"allowed": lambda self: np.arange(300), "advance": lambda self, token: None})
    run.engine.constraint = type("Anything", (), {"walk": lambda self: walk()})()


def shorter_engine(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.engine.constraint = Shorter(run.config, str(run.config.model.path))


def longer_learner(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run.session.learner.own.passes.constraint = Shorter(run.config, str(run.config.model.path))  # type: ignore[union-attr]


def forgetful_engine(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    spelled = run.engine.constraint.spelled
    run.engine.constraint = type("Again", (), {"walk": lambda self: Forgetful(spelled)})()


def forgetful_learner(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = run.session.learner.own.passes  # type: ignore[union-attr]
    monkeypatch.setattr(type(passes.constraint), "walk", lambda self: Forgetful(self.spelled))
    run.engine.constraint = type("Sound", (), {"walk": lambda self, s=passes.constraint.spelled: ListWalk(s)})()


def narrow_on_both_sides(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(run.engine.constraint), "walk", lambda self: Narrow(self.spelled))


def temperature_of_learner(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = algorithms.allowed_logprobs
    from rlpost.algorithms import logprobs

    monkeypatch.setattr(logprobs, "allowed_logprobs", lambda a, b, temperature, c: sound(a, b, 1.0, c))


def temperature_of_engine(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine normalises before the temperature acts, and not after it."""
    from torch import log_softmax

    def once(logits: torch.Tensor, dim: int) -> torch.Tensor:
        return log_softmax(logits * 0.8, dim)

    sample = run.engine._sample

    def sampled(requests: Any, settings: Any) -> Any:
        with monkeypatch.context() as patch:
            if settings.constrained:
                patch.setattr(torch, "log_softmax", once)
            return sample(requests, settings)

    run.engine._sample = sampled


def one_place_late(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlpost.learner import passes

    sound = passes.chained

    def shifted(parts: Sequence[Any]) -> Any:
        return sound([*parts[1:], parts[0]])

    monkeypatch.setattr(passes, "chained", shifted)


def entropy_of_all(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        logprob_model, "allowed_moments", lambda logits, t, those: logprob_model.surprise_moments(logits, t)
    )


Plant = Callable[[LocalRun, pytest.MonkeyPatch], None]
BUGS: list[tuple[Plant, tuple[str, ...]]] = [
    (unmasked_learner, ("mismatch: the loss and the engine differ",)),
    (unmasked_engine, ("sample ",)),
    (shorter_engine, ("sample ",)),
    (longer_learner, ("sample ",)),
    (forgetful_engine, ("sample ",)),
    (forgetful_learner, ("constraint: at place",)),
    (narrow_on_both_sides, ("constraint: at place",)),
    (temperature_of_learner, ("invariance", "mismatch")),
    (temperature_of_engine, ("mismatch",)),
]


@pytest.mark.parametrize(("plant", "checks"), BUGS, ids=[plant.__name__ for plant, _ in BUGS])
def test_a_planted_bug_ends_the_run_at_once(
    model: str, monkeypatch: pytest.MonkeyPatch, plant: Plant, checks: tuple[str, ...]
) -> None:
    run = LocalRun(config_of(model))
    plant(run, monkeypatch)
    step, line, _ = outcome(run, 2)
    print(f"\n{plant.__name__}: step {step}: {line}")
    assert step in (0, 1), "the run went on"
    assert line.startswith(checks), line
    if checks == ("sample ",):
        assert "the engine does not sample under rollout.constraint as the learner scores" in line


@pytest.mark.parametrize(
    ("plant", "last"), [(unmasked_learner, 1), (temperature_of_learner, 1), (temperature_of_engine, 8)]
)
def test_a_planted_bug_ends_a_run_in_bfloat16(
    model: str, monkeypatch: pytest.MonkeyPatch, plant: Plant, last: int
) -> None:
    """A temperature of 0.8 changes these distributions by less than rounding of one step may: it takes a few steps."""
    run = LocalRun(config_of(model, "bfloat16"))
    plant(run, monkeypatch)
    step, line, _ = outcome(run, last + 1)
    print(f"\n{plant.__name__} bfloat16: step {step}: {line}")
    assert step >= 0, "the run went on"
    assert line.startswith(("mismatch", "invariance")), line


def test_places_that_are_mixed_up_are_a_loud_error(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = LocalRun(config_of(model))
    one_place_late(run, monkeypatch)
    with pytest.raises(ValueError, match="tokens are not allowed at their places"):
        outcome(run, 1)


def test_an_entropy_of_all_tokens_is_found_by_how_much_samples_surprise(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LocalRun(config_of(model))
    entropy_of_all(run, monkeypatch)
    step, line, _ = outcome(run, 8)
    assert step >= 0
    assert "the engine samples more sharply" in line


def test_what_cannot_hold_is_refused_in_one_line(model: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"rollout.max_tokens: 9 would cut the longest answer .* set it to \d+ or more"
    ):
        check_constraint(config_of(model, rollout={"max_tokens": 9}), model)
    with pytest.raises(ConfigError, match=r"evaluation.sampling.max_tokens: 8 would cut the longest answer"):
        check_constraint(config_of(model, evaluation={"sampling": {"max_tokens": 8}}), model)
    with pytest.raises(ConfigError, match=r"rollout.stop: 'x' could end an answer"):
        check_constraint(config_of(model, rollout={"stop": ["x"]}), model)
    for wrong, said in (
        ({"name": "catalog_lists"}, "constraint 'catalog_lists' is not known; did you mean catalog_list"),
        ({"name": "catalog_list", "sizes": 3}, r"rollout.constraint: 'catalog_list' cannot take .*'sizes'"),
        ({"name": "catalog_list", "size": 2000}, "size is 2000, and the catalog has"),
    ):
        with pytest.raises(UserError, match=said):
            constraint_of(config_of(model, rollout={"constraint": wrong}), model)
    with pytest.raises(
        ConfigError, match=r"rollout.constraint: 'catalog_list' says what an answer of one turn may hold"
    ):
        config_of(model, environment={"name": "lean.tactics"})
    lines: list[str] = []
    check_constraint(config_of(model), model, lines.append)
    assert not lines


def test_another_constraint_is_another_run() -> None:
    assert declared(("rollout", "constraint", "size")) == declared(("rollout", "constraint")) == "asks"


def test_what_the_verifier_has_by_the_same_name_need_not_be_said_twice(model: str) -> None:
    tree = {"scoring": {"verifier": "catalog", "verifier_args": {"items": 7, "popularity": "votes"}}}
    config = config_of(model, rollout={"constraint": {"name": "catalog_list", "size": 3}}, **tree)
    assert constraint_of(config, model).count == 7  # type: ignore[union-attr]
    given = config_of(model, rollout={"constraint": {"name": "catalog_list", "size": 3, "items": 9}}, **tree)
    assert constraint_of(given, model).count == 9  # type: ignore[union-attr]


EVENS = '''
import numpy as np

class Evens:
    """Three even tokens below 40, no two the same, and the end token."""

    fingerprint, max_tokens = "evens", 4

    def __init__(self, tokens):
        self.tokens = tokens

    def allowed(self, prefix):
        if len(prefix) == 3:
            return np.array([self.tokens.end])
        return np.setdiff1d(np.arange(10, 40, 2), prefix) if len(prefix) < 3 else np.zeros(0, int)
'''


def test_a_constraint_of_ones_own_needs_no_walk(model: str, tmp_path: Path) -> None:
    (tmp_path / "evens.py").write_text(EVENS)
    config = config_of(model, rollout={"constraint": {"name": f"{tmp_path / 'evens.py'}:Evens"}, "max_tokens": 4})
    run = LocalRun(config)
    run.session.publish()
    for group in collect(run.session, 0).groups:
        for one in group.tokens:
            answer = one.token_ids[one.mask].tolist()
            assert len(set(answer)) == 4
            assert all(token % 2 == 0 and 10 <= token < 40 for token in answer[:3])
    step, line, _ = outcome(LocalRun(config), 2)
    assert (step, line) == (-1, "")
