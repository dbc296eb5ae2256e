"""Losses and advantages of the user's own: the result of a sound one, and the message for each kind of mistake.

Not covered: a run with one (tests/ray/test_user_code.py).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rlpost.algorithms.losses import LossInputs
from rlpost.config import checks
from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.errors import ConfigError, UserError
from rlpost.plugins import registry
from rlpost.plugins.algorithm import EXAMPLE_COUNTS, build_advantage, build_loss, example_inputs
from rlpost.plugins.trial_algorithm import try_algorithm, try_loss
from rlpost.types import Denominators, SpanReward

EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "examples" / "cispo.py"


def configured(dtype: str = "float32", **algorithm: Any) -> RunConfig:
    return from_dict(
        {"model": {"path": "m", "dtype": dtype}, "scoring": {"verifier": "function"}, "algorithm": algorithm}
    )


def written(folder: Path, body: str, **algorithm: Any) -> RunConfig:
    (folder / "tried_loss.py").write_text(f"import torch\n\n\n{body}\n")
    return configured(loss=f"{folder}/tried_loss.py:mine", **algorithm)


def refusal(config: RunConfig) -> str:
    with pytest.raises(UserError) as caught:
        try_algorithm(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cispo_by_hand() -> None:
    """Ratios 2 and 0.5 at a ceiling of 1.2, advantages 1 and -1: weights 1.2 and 0.5; two tokens."""
    loss = build_loss(configured(loss=f"{EXAMPLE}:cispo"))
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    inputs = LossInputs(
        logprobs=logprobs,
        proximal_logprobs=torch.tensor([[-1.0 - math.log(2), -2.0 + math.log(2)]]),
        advantages=torch.tensor([[1.0, -1.0]]),
        mask=torch.tensor([[True, True]]),
        span_ids=torch.zeros(1, 2, dtype=torch.long),
    )
    value, sums = loss(inputs, Denominators(2, 1, 1, 8))
    value.backward()
    assert value.item() == pytest.approx(-(1.2 * 1 * -1.0 + 0.5 * -1 * -2.0) / 2)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [pytest.approx([-1.2 / 2, 0.5 / 2])]
    assert {name: float(figure) for name, figure in sums.items()} == pytest.approx(
        {"loss": value.item(), "loss/capped": 0.5}
    )


@pytest.mark.parametrize("ratio", ["token", "span", "sequence"])
@pytest.mark.parametrize(
    "importance", [{"mode": "off"}, {"mode": "mask", "level": "sequence", "low": 0.5, "cap": 3.0}, {"mode": "truncate"}]
)
def test_the_documented_example_is_the_built_in_cispo(ratio: str, importance: dict[str, Any]) -> None:
    more = {"ratio": ratio, "importance": importance, "kl": {"coef": 0.1}, "clip": [1.0, 0.3]}
    mine, built = (build_loss(configured(loss=name, **more)) for name in (f"{EXAMPLE}:cispo", "cispo"))
    found = []
    for loss in (mine, built):
        inputs = example_inputs(loss.settings)
        value, sums = loss(inputs, EXAMPLE_COUNTS)
        value.backward()
        assert inputs.logprobs.grad is not None
        found.append((value.item(), float(sums["kl"]), inputs.logprobs.grad))
    assert found[0][:2] == pytest.approx(found[1][:2], rel=1e-6)
    torch.testing.assert_close(found[0][2], found[1][2])


def test_maxrl_names_the_reward_that_it_cannot_divide_by() -> None:
    advantages = build_advantage(configured(advantage="maxrl", std=False))
    assert advantages([(SpanReward(0, 2, 1.0),), None, (SpanReward(0, 2, 0.0),)]) == [[1.0], None, [-1.0]]
    with pytest.raises(UserError) as caught:
        advantages([(SpanReward(0, 2, 1.0),), (SpanReward(0, 2, -0.5),)])
    assert "algorithm.advantage 'maxrl'" in str(caught.value)
    assert "a reward is -0.5; give rewards of 0 or more" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("more", [{}, {"kl": {"coef": 0.1}}, {"loss_args": {"ceiling": 3.0}}])
def test_the_documented_example_keeps_to_the_contract(dtype: str, more: dict[str, Any]) -> None:
    config = configured(dtype, loss=f"{EXAMPLE}:cispo", **more)
    try_algorithm(config)
    assert set(build_loss(config).metrics) == {"loss", "loss/capped"} | ({"kl"} if "kl" in more else set())


@pytest.mark.parametrize("clip", [[0.2, 0.2], [3e-4, 4e-4]], ids=["GRPO's", "GSPO's"])
@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_the_built_in_loss_keeps_to_it_too(clip: list[float], kind: str) -> None:
    for dtype in ("float32", "bfloat16"):
        for ratio in ("token", "span", "sequence"):
            for aggregate in ("token", "sequence", "sequence_sum", "span", "constant"):
                kl = {"coef": 0.1, "kind": kind}
                loss = build_loss(configured(dtype, ratio=ratio, aggregate=aggregate, clip=clip, kl=kl))
                try_loss(loss, example_inputs(loss.settings))


def test_its_metrics_are_known_before_the_first_update() -> None:
    assert set(build_loss(configured()).metrics) == {"loss", "ratio", "clip_frac/low", "clip_frac/high"}
    more = build_loss(configured("bfloat16", kl={"coef": 0.1}))
    assert {"kl", "importance"} <= set(more.metrics)


SOUND = "-(torch.where(inputs.mask, inputs.logprobs * inputs.advantages, 0.0)).sum() / counts.tokens"
GIVEN = "def mine(inputs, settings, counts):\n    lp, old, A, f = inputs.logprobs, inputs.proximal_logprobs, inputs.advantages, inputs.mask.float()\n"


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("def mine(inputs, settings, counts):\n    return inputs.logprobs * 2", ["shape (4, 4); a scalar tensor"]),
        ("def mine(inputs, settings, counts):\n    return 0.5", ["answered 0.5; a scalar tensor is needed"]),
        (f"def mine(inputs, settings, counts):\n    return ({SOUND}).reshape(1)", ["shape (1,); a scalar"]),
        (f"def mine(inputs, settings, counts):\n    return {SOUND}, {{}}, 1", ["a scalar tensor is needed"]),
        (f"def mine(inputs, settings, counts):\n    return ({SOUND}).detach()", ["it has no gradient"]),
        (f"def mine(inputs, settings, counts):\n    return ({SOUND}) * float('nan')", ["it is nan on-policy; a finite"]),
        ("def mine(inputs, settings, counts):\n    return (inputs.logprobs * 0).sum()", ["gradient", "is zero"]),
        (
            "def mine(inputs, settings, counts):\n    return -(inputs.logprobs * inputs.advantages).sum() / counts.tokens",
            ["masked tokens get a gradient", "token_weights"],
        ),
        (
            "def mine(inputs, settings, counts):\n"
            "    return -(inputs.logprobs * inputs.advantages * inputs.mask).sum() / inputs.mask.sum()",
            ["4 micro-batches make", "divide by the given counts"],
        ),
        (f"def mine(inputs, settings, counts):\n    return {SOUND}, {{'a': inputs.mask}}", ["its metrics are"]),
        ("def mine(inputs, settings, counts):\n    return inputs.logits", ["tried_loss.py:5", "AttributeError"]),
        ("mine = 3", ["a function or a class is needed"]),
        ("def mine(inputs):\n    return inputs", ["cannot be called with {}"]),
        (f"class mine:\n    def __call__(self, inputs, settings, counts):\n        return -({SOUND}).abs().sqrt() * 0", ["zero"]),
    ],
)  # fmt: skip
def test_a_loss_that_breaks_the_contract(tmp_path: Path, body: str, parts: list[str]) -> None:
    message = refusal(written(tmp_path, body))
    assert message.startswith("algorithm.loss '")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("    d = torch.where(inputs.mask, lp - old, 1.0)\n    return torch.where(inputs.mask, -lp*A + .1*(d**2).sqrt(), 0.).sum()/counts.tokens", "gradient is not finite on-policy"),
        ("    return -(((lp-old).exp()-1)**2*A*f).sum()/counts.tokens", "zero on-policy, as at the first update"),
        ("    return -(lp*A/A.abs()*f).sum()/counts.tokens", "it is nan"),
        ("    return (lp*A*f).sum()/counts.tokens", "minus the objective"),
        ("    return -(lp*f).sum()/counts.tokens", "does not depend on inputs.advantages"),
        ("    return -(lp*A*f).mean(-1).sum()/counts.sequences", "micro-batches make"),
        ("    return -((lp-lp.detach())*A*f).sum()/f.sum()", "another gradient"),
        ("    return -(lp*A*f).sum()/f.sum()*1e-6", "micro-batches make"),
        ("    x = -((lp-lp.detach())*A*f).sum()/counts.tokens\n    return x/(1+abs(len(lp)-2))", "another gradient"),
        ("    return -(lp*A*(torch.rand_like(lp) < .5)*f).sum()/counts.tokens", "draw random numbers"),
        ("    inputs.mask.logical_and_(A > 0)\n    return -(lp*A*f).sum()/counts.tokens", "changes inputs.mask in place"),
        ("    x = -(lp*A*f).sum()/counts.tokens\n    x.backward(retain_graph=True)\n    return x.bfloat16()", "compute it in float32"),
        ("    return -(lp*A*f).sum()/counts.tokens, {'mine': (lp*f).sum().detach()/f.sum()}", "metric 'mine'"),
        ("    return -(lp*A*f).sum()/counts.tokens, {'mine': float('nan')}", "finite scalars"),
        ("    return -(lp*A*f).sum()/counts.tokens, {'loss': 1.0}", "metric 'loss' is not the loss"),
        ("    return -(lp*A*f).sum()/counts.tokens, ({'m': 1.0/4} if len(lp) == 4 else {})", "always give the same"),
        ("    raise SystemExit(3)", "SystemExit"),
    ],
)  # fmt: skip
def test_a_loss_that_computes_something_else_is_refused(tmp_path: Path, body: str, part: str) -> None:
    assert part in refusal(written(tmp_path, GIVEN + body))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("-(lp*A.clamp(max=0)*f).sum()/counts.tokens", id="negative samples only"),
        pytest.param("-((lp-old).exp()*A*f).sum()/(counts.sequences*settings.clip_low)", id="a constant of its own"),
        pytest.param("[-(lp*A*f).sum()/counts.tokens, {'n': f.sum()/counts.tokens}]", id="a list"),
        pytest.param("-((lp*f).sum(-1)/f.sum(-1)*A[:, 0]).sum()/counts.sequences", id="means over sequences"),
        pytest.param("-(torch.sigmoid(4*((lp-old).exp()-1))*A*f).sum()/counts.tokens", id="SAPO's gate"),
    ],
)
def test_a_sound_loss_of_another_form_passes(tmp_path: Path, body: str) -> None:
    try_algorithm(written(tmp_path, f"{GIVEN}    return {body}"))


@pytest.mark.parametrize("rule", ["(w > .5) & (w < 5)", "w < 5"])
def test_an_importance_mask_of_extreme_ratios_reads_the_engine(tmp_path: Path, rule: str) -> None:
    body = f"    w = (old - inputs.rollout_logprobs).exp()\n    return -(lp*A*f*({rule})).sum()/counts.tokens"
    try_algorithm(written(tmp_path, GIVEN + body, importance={"mode": "truncate"}))


def test_a_setting_that_the_loss_does_not_read_is_refused(tmp_path: Path) -> None:
    body = f"def mine(inputs, settings, counts):\n    return {SOUND}"
    try_algorithm(written(tmp_path, body))
    message = refusal(written(tmp_path, body, kl={"coef": 0.1}))
    assert "algorithm.kl.coef is on, but it does not read inputs.ref_logprobs; set coef to 0" in message
    message = refusal(written(tmp_path, body, importance={"mode": "truncate"}))
    assert "algorithm.importance is on, but it does not read inputs.rollout_logprobs; set mode to off" in message


def test_a_class_is_made_with_its_arguments(tmp_path: Path) -> None:
    body = f"class mine:\n    def __init__(self, scale):\n        self.scale = scale\n\n    def __call__(self, inputs, settings, counts):\n        return self.scale * {SOUND}"
    try_algorithm(written(tmp_path, body, loss_args={"scale": 2.0}))
    assert "cannot take {}" in refusal(written(tmp_path, body))


def test_the_trial_can_be_left_out(tmp_path: Path) -> None:
    config = written(tmp_path, "def mine(inputs, settings, counts):\n    return 0.5")
    try_algorithm(config.model_copy(update={"selfcheck": config.selfcheck.model_copy(update={"plugins": False})}))


def test_an_unknown_loss_is_named_with_the_near_misses() -> None:
    with pytest.raises(ConfigError, match=r"algorithm.loss: 'cliped' is not known; did you mean clipped"):
        configured(loss="cliped")
    with pytest.raises(ConfigError, match=r"algorithm.advantage: 'group' is not known"):
        configured(advantage="group")


def test_the_names_that_a_configuration_knows_are_those_of_the_registry() -> None:
    assert set(checks.LOSSES) == set(registry.BUILTIN["losses"])
    assert set(checks.ADVANTAGES) == set(registry.BUILTIN["advantages"])


def advantage(folder: Path, body: str, **algorithm: Any) -> RunConfig:
    (folder / "tried_advantage.py").write_text(f"{body}\n")
    return configured(advantage=f"{folder}/tried_advantage.py:mine", **algorithm)


def test_an_advantage_of_ones_own(tmp_path: Path) -> None:
    body = "def mine(rewards, settings, scale=1.0):\n    return [r and [scale * s.value for s in r] for r in rewards]"
    config = advantage(tmp_path, body, advantage_args={"scale": 3.0})
    try_algorithm(config)
    assert build_advantage(config)([(SpanReward(0, 1, 2.0),), None]) == [[6.0], None]


CENTRED = (
    "import numpy as np, statistics\ndef mine(rewards, settings):\n"
    "    v = [s.value for r in rewards if r for s in r]\n    m, d = statistics.mean(v), statistics.pstdev(v)\n"
)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("def mine(rewards, settings):\n    return [0.0]", "one entry for each of 4 completions"),
        ("def mine(rewards, settings):\n    return [[0.0, 0.0]] * 4", "gave an undecided completion an advantage"),
        ("def mine(rewards, settings):\n    return [r and [0.0] for r in rewards]", "[0.0] for 2 spans"),
        ("def mine(rewards, settings):\n    return [r and [float('inf')] * 2 for r in rewards]", "finite numbers"),
        ("def mine(rewards, settings):\n    return rewards[9]", "IndexError"),
        ("def mine(rewards, settings):\n    return [r and ['a'] * len(r) for r in rewards]", "finite numbers"),
        ("def mine(rewards, settings):\n    rewards.remove(None)\n    return rewards", "AttributeError"),
        (f"{CENTRED}    return [r and [(s.value - m) / d for s in r] for r in rewards]", "rewards are equal"),
        (
            f"{CENTRED}    return [r and [(s.value - m) / np.float64(d) for s in r] for r in rewards]",
            "rewards are equal",
        ),
        (
            "def mine(rewards, settings):\n    rows = [r and [s.value for s in r] for r in rewards]\n    live = [x for x in rows if x is not None][::-1]\n    return [x and live.pop(0) for x in rows]",
            "keep its own advantage",
        ),
        (
            "def mine(rewards, settings):\n    return [r and [-s.value for s in r] for r in rewards]",
            "a higher reward needs",
        ),
        ("def mine(rewards, settings):\n    return [r and [0.0 for s in r] for r in rewards]", "a higher reward needs"),
        (
            "import numpy as np\ndef mine(rewards, settings):\n    m = np.array([[s.value for s in r] for r in rewards if r])\n    it = iter(m - m.mean(0))\n    return [r and next(it) for r in rewards]",
            "ValueError",
        ),
    ],
)
def test_an_advantage_that_breaks_the_contract(tmp_path: Path, body: str, part: str) -> None:
    message = refusal(advantage(tmp_path, body))
    assert message.startswith("algorithm.advantage '")
    assert part in message


def test_an_advantage_that_fails_in_a_run_is_named(tmp_path: Path) -> None:
    """Also without a trial; a number that is not finite would otherwise skip updates silently."""
    body = "def mine(rewards, settings):\n    return [[1.0 / (1.0 - r[0].value)] for r in rewards]"
    tried = build_advantage(advantage(tmp_path, body))
    with pytest.raises(UserError, match=r"algorithm\.advantage .* fails at .*tried_advantage\.py:2: ZeroDivisionError"):
        tried([(SpanReward(0, 1, 1.0),)])
    unfinite = build_advantage(advantage(tmp_path, "def mine(rewards, settings):\n    return [[1e39]]"))
    with pytest.raises(UserError, match=r"\[1e\+39\]; finite numbers"):
        unfinite([(SpanReward(0, 1, 1.0),)])


def test_advantages_of_numpy_are_taken(tmp_path: Path) -> None:
    body = "import numpy as np\ndef mine(rewards, settings):\n    return [r if r is None else np.array([s.value for s in r]) for r in rewards]"
    config = advantage(tmp_path, body)
    try_algorithm(config)
    assert build_advantage(config)([(SpanReward(0, 1, 2.0),), None]) == [[2.0], None]


WEIGHTED = """def mine(inputs, settings, counts):
    w = truncated_importance(inputs.proximal_logprobs, inputs.rollout_logprobs, inputs.mask, settings.importance_cap)
    value = torch.where(inputs.mask, -w * inputs.logprobs * inputs.advantages, 0.0)
    return value.sum() / counts.tokens"""


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ({"mode": "mask"}, "algorithm.importance.mode is mask, but it does not read settings.importance_kind"),
        ({"mode": "truncate", "level": "sequence"}, "algorithm.importance.level is sequence, but it does not read"),
        ({"mode": "truncate", "low": 0.5}, "algorithm.importance.low is 0.5, but it does not read"),
    ],
)
def test_a_loss_that_weights_otherwise_than_the_configuration_says_is_refused(
    tmp_path: Path, importance: dict[str, Any], message: str
) -> None:
    body = f"from rlpost.algorithms.ratios import truncated_importance\n\n\n{WEIGHTED}"
    try_algorithm(written(tmp_path, body, importance={"mode": "truncate"}))
    assert message in refusal(written(tmp_path, body, importance=importance))


@pytest.mark.parametrize("name", ["cispo", "gmpo", "dppo_tv", "dppo_kl"])
def test_the_other_built_in_losses_keep_to_the_contract(name: str) -> None:
    level = {"ratio": "sequence", "aggregate": "sequence"} if name == "gmpo" else {}
    for dtype in ("float32", "bfloat16"):
        loss = build_loss(configured(dtype, loss=name, kl={"coef": 0.1}, **level))
        try_loss(loss, example_inputs(loss.settings))
        assert {"loss", "ratio", "clip_frac/low", "clip_frac/high", "kl"} <= set(loss.metrics)
        assert not any(metric.startswith("loss/") for metric in loss.metrics)
