"""Losses, gradients, importance weights and advantages against TRL's own code, over the grid of settings.

`GRPOTrainer._compute_loss` runs as it is, on an object that holds the settings and the log-probabilities in place of a
trainer and its model. TRL computes importance weights and advantages in the middle of a method that also generates:
those statements are taken from its source and run by themselves. Not covered: what TRL does not have (spans, DPPO,
MaxRL, leave-one-out; by hand in tests/unit/algorithms).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlpost.algorithms.advantages import AdvantageSettings, divide_by_batch_std, group_advantages
from rlpost.algorithms.losses import LossInputs, LossSettings, policy_loss
from rlpost.algorithms.ratios import importance_weights
from rlpost.types import Denominators, SpanReward

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")
gmpo_trainer = pytest.importorskip("trl.experimental.gmpo.gmpo_trainer")

Trainer = grpo_trainer.GRPOTrainer
MAX_TOKENS = 9
TOLERANCE = 1e-6
LOSS_TYPES = {"sequence": "grpo", "token": "dapo", "constant": "dr_grpo", "sequence_sum": "luspo"}
"""Our aggregations by TRL's loss types."""
CLIPS = ((0.2, 0.28), (3e-4, 4e-4))
DELTAS = (None, 1.35, 2.0)
CORRECTIONS = (
    None,
    ("truncate", "token", None, 1.3),
    ("truncate", "token", 0.8, 1.3),
    ("mask", "token", None, 1.3),
    ("mask", "token", 0.8, 1.3),
    ("truncate", "sequence", 0.5, 1.5),
    ("mask", "sequence", None, 1.5),
    ("mask", "sequence", 0.5, 1.5),
)


@dataclass
class Drawn:
    """One minibatch: masks with gaps and padding, a completion of one token, advantages of both signs and 0."""

    dtype: torch.dtype
    new: torch.Tensor = field(init=False)
    old: torch.Tensor = field(init=False)
    rollout: torch.Tensor = field(init=False)
    ref: torch.Tensor = field(init=False)
    advantages: torch.Tensor = field(init=False)
    mask: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        source = torch.Generator().manual_seed(17)

        def noise(scale: float) -> torch.Tensor:
            return scale * torch.randn(6, MAX_TOKENS, generator=source, dtype=torch.float64)

        new = -2 + noise(1.0).clamp(-1.9, 1.9)
        old = new + noise(0.7)
        self.new, self.old, self.ref = (x.to(self.dtype) for x in (new, old, new + noise(0.5)))
        self.rollout = (old + noise(0.25)).to(self.dtype)
        self.advantages = torch.tensor([1.5, -0.7, 0.0, 2.0, -1.0, 0.4], dtype=self.dtype)
        self.mask = torch.ones(6, MAX_TOKENS, dtype=torch.bool)
        for row, stop in enumerate((9, 7, 4, 1, 6, 8)):
            self.mask[row, stop:] = False
        self.mask[0, 2:4] = self.mask[4, 0] = False

    @property
    def counts(self) -> Denominators:
        return Denominators(int(self.mask.sum()), len(self.mask), len(self.mask), MAX_TOKENS)


def ours(drawn: Drawn, settings: LossSettings) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = drawn.new.clone().requires_grad_()
    inputs = LossInputs(
        logprobs=leaf, proximal_logprobs=drawn.old, advantages=drawn.advantages[:, None].expand_as(leaf),
        mask=drawn.mask, span_ids=torch.where(drawn.mask, 0, -1), rollout_logprobs=drawn.rollout,
        ref_logprobs=drawn.ref,
    )  # fmt: skip
    loss, _ = policy_loss(inputs, settings, drawn.counts)
    [gradient] = torch.autograd.grad(loss, [leaf])
    return loss.detach(), gradient


def theirs(
    drawn: Drawn, settings: LossSettings, loss_type: str, weights: torch.Tensor | None, trainer: Any = Trainer
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = drawn.new.clone().requires_grad_()
    high = 1 + settings.clip_high if settings.surrogate == "cispo" else settings.clip_high
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (leaf, torch.zeros_like(leaf), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level=settings.ratio, beta=settings.kl_coef, loss_type=loss_type,
        epsilon_low=settings.clip_low, epsilon_high=high,
        args=SimpleNamespace(delta=settings.delta, use_bias_correction_kl=False, steps_per_generation=1),
        use_vllm=weights is not None, vllm_importance_sampling_correction=weights is not None,
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=1,
        max_completion_length=MAX_TOKENS, accelerator=accelerator, _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    tokens = torch.zeros(drawn.mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": tokens[:, :1], "prompt_mask": tokens[:, :1] + 1, "completion_ids": tokens,
        "completion_mask": drawn.mask.to(drawn.dtype), "advantages": drawn.advantages,
        "old_per_token_logps": drawn.old, "ref_per_token_logps": drawn.ref,
        "num_items_in_batch": drawn.mask.sum(), "importance_sampling_ratio": weights,
    }  # fmt: skip
    loss = trainer._compute_loss(stub, None, inputs)
    [gradient] = torch.autograd.grad(loss, [leaf])
    return loss.detach(), gradient


def alike(drawn: Drawn, settings: LossSettings, loss_type: str, trainer: Any = Trainer) -> None:
    weights = None
    if settings.importance_cap is not None:
        weights = their_weights(drawn, settings)
    (loss, gradient), (reference, slope) = ours(drawn, settings), theirs(drawn, settings, loss_type, weights, trainer)
    assert torch.isfinite(slope).all()
    assert float((loss - reference).abs()) <= TOLERANCE * max(1.0, float(reference.abs())), settings
    # relative to the largest slope, which is a few hundredths
    assert float((gradient - slope).abs().max()) <= TOLERANCE * float(slope.abs().max()), settings


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def drawn(request: pytest.FixtureRequest) -> Drawn:
    return Drawn(request.param)


def their_statement(method: Any, start: str) -> Any:
    """The code of the statement of a method whose source begins like this."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and ast.unparse(node).startswith(start)]
    assert found, f"TRL has no statement {start!r} any more"
    return compile(ast.Module(body=[found[-1]], type_ignores=[]), "trl", "exec")


WEIGHTS = their_statement(
    Trainer._generate_and_score_completions,
    "if self.use_vllm and self.vllm_importance_sampling_correction:\n    mask =",
)
ADVANTAGES = their_statement(
    Trainer._generate_and_score_completions, "if self.multi_objective_aggregation == 'sum_then_normalize':"
)


def their_weights(drawn: Drawn, settings: LossSettings) -> torch.Tensor:
    trainer = SimpleNamespace(
        use_vllm=True, vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode=f"{settings.importance_level}_{settings.importance_kind}",
        vllm_importance_sampling_clip_max=settings.importance_cap,
        vllm_importance_sampling_clip_min=settings.importance_low,
    )  # fmt: skip
    scope: dict[str, Any] = {
        "self": trainer, "torch": torch, "math": math, "tool_mask": None, "completion_mask": drawn.mask.to(drawn.dtype),
        "old_per_token_logps": drawn.old, "sampling_per_token_logps": drawn.rollout,
    }  # fmt: skip
    exec(WEIGHTS, scope)  # TRL's own statement
    return scope["vllm_importance_sampling_ratio"]


def with_correction(settings: LossSettings, correction: Any) -> LossSettings:
    if correction is None:
        return settings
    kind, level, low, cap = correction
    return LossSettings(
        **{name: getattr(settings, name) for name in settings.__dataclass_fields__ if "importance" not in name},
        importance_cap=cap, importance_low=low, importance_kind=kind, importance_level=level,
    )  # fmt: skip


def test_every_limit_acts_on_some_token(drawn: Drawn) -> None:
    ratio = (drawn.new - drawn.old).exp()
    bad, good = (drawn.mask & (sign * drawn.advantages[:, None] > 0) for sign in (-1, 1))
    for limit in (1.35, 2.0):
        assert (ratio[bad] > limit).any()
    assert (ratio[bad] < 0.8).any()
    assert (ratio[good] > 1.28).any()
    assert (ratio[bad | good] > 1.2).any()
    # of the sequence's ratio, too
    mean = ((drawn.new - drawn.old) * drawn.mask).sum(1) / drawn.mask.sum(1)
    assert (mean[drawn.advantages < 0].exp() > 1.35).any()


@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
def test_clipped_losses_and_their_gradients(drawn: Drawn, correction: Any) -> None:
    for ratio, (low, high), delta, (aggregate, loss_type), beta in itertools.product(
        ("token", "sequence"), CLIPS, DELTAS, LOSS_TYPES.items(), (0.0, 0.04)
    ):
        settings = LossSettings(
            ratio=ratio, clip_low=low, clip_high=high, delta=delta, aggregate=aggregate, kl_coef=beta  # type: ignore[arg-type]
        )  # fmt: skip
        alike(drawn, with_correction(settings, correction), loss_type)


@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
def test_cispo(drawn: Drawn, correction: Any) -> None:
    for ratio, high, beta in itertools.product(("token", "sequence"), (0.0, 0.2, 4.0), (0.0, 0.04)):
        # TRL has no lower limit: neither has ours at 1
        settings = LossSettings(surrogate="cispo", ratio=ratio, clip_low=1.0, clip_high=high, kl_coef=beta)  # type: ignore[arg-type]
        alike(drawn, with_correction(settings, correction), "cispo")


def test_gmpo(drawn: Drawn) -> None:
    for (low, high), beta in itertools.product(((0.4, 0.4), (0.1, 0.3), (0.0, 0.0)), (0.0, 0.04)):
        settings = LossSettings(
            surrogate="gmpo", ratio="sequence", clip_low=low, clip_high=high, aggregate="sequence", kl_coef=beta
        )
        alike(drawn, settings, "grpo", gmpo_trainer.GMPOTrainer)


@pytest.mark.parametrize("correction", [one for one in CORRECTIONS if one], ids=str)
def test_importance_weights(drawn: Drawn, correction: Any) -> None:
    kind, level, low, cap = correction
    found = importance_weights(drawn.old, drawn.rollout, drawn.mask, cap=cap, low=low, kind=kind, level=level)
    expected = their_weights(drawn, with_correction(LossSettings(), correction)).expand_as(drawn.mask)
    assert torch.equal(found[drawn.mask], expected[drawn.mask])
    if kind == "mask":
        assert (found[drawn.mask] == 0).any()
    assert len(set(found[drawn.mask].tolist())) > 2


def their_advantages(groups: list[list[float | None]], scale: str) -> list[float]:
    flat = torch.tensor([math.nan if r is None else r for rewards in groups for r in rewards], dtype=torch.float64)
    trainer = SimpleNamespace(
        multi_objective_aggregation="sum_then_normalize", scale_rewards=scale, reward_weights=torch.ones(1)
    )
    scope: dict[str, Any] = {
        **vars(grpo_trainer), "self": trainer, "rewards_per_func": flat[:, None], "unscorable_mask": flat.isnan(),
        "device": "cpu", "num_generations": len(groups[0]),
    }  # fmt: skip
    exec(ADVANTAGES, scope)  # TRL's own statement
    return scope["advantages"].tolist()


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize(
    "groups",
    [
        [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]],
        [[1.0, 1.0, 1.0, 1.0], [0.25, 0.0, 1.0, -3.0]],
        [[-1.0, -2.5, None, -1.0], [0.5, None, None, 7.0], [0.0, 0.0, 0.0, 0.0]],
    ],
    ids=["right and wrong", "a group without contrast, and negative rewards", "undecided members"],
)
def test_advantages(groups: list[list[float | None]], scale: str) -> None:
    rewards = [[None if r is None else (SpanReward(0, 3, r),) for r in group] for group in groups]
    settings = AdvantageSettings(std=scale == "group", eps=1e-4)
    rows = [group_advantages(group, settings) for group in rewards]
    if scale == "batch":
        rows = divide_by_batch_std(rewards, rows, ddof=1, eps=1e-4)
    found = [math.nan if row is None else row[0] for group in rows for row in group]
    # their correction of the deviation is a quotient in float32
    assert found == pytest.approx(their_advantages(groups, scale), abs=1e-7, nan_ok=True)
