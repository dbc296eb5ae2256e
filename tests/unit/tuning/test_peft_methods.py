from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlpost.config.tuning import LoraSettings, LoraXsSettings
from rlpost.data.models import load
from rlpost.errors import ConfigError, SelfCheckError
from rlpost.tuning.lora import Lora
from rlpost.tuning.lora_xs import LoraXs
from rlpost.tuning.peft_methods import Adapted, peft_config


def whole(_: Any) -> Any:
    return nullcontext()


def held(tuning: Adapted) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tuning.weights(whole)}


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 15).unsqueeze(0)).logits


def move(tuning: Adapted, scale: float = 0.1) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for _, p in tuning.trained():
            p.add_(torch.randn_like(p) * scale)


@pytest.mark.parametrize("settings", [{}, {"init": "pissa"}, {"rank_pattern": {"v_proj": 3}, "rslora": True}])
def test_base_plus_adapter_are_the_published_weights(tiny_model: str, settings: dict) -> None:
    base = dict(load(tiny_model, "float32").named_parameters())
    tuning = Lora(load(tiny_model, "float32"), LoraSettings(r=8, **settings))
    assert all(torch.allclose(base[n], p, atol=1e-6) for n, p in held(tuning).items())
    move(tuning)
    weights, adapter = held(tuning), tuning.adapter(whole)
    assert weights.keys() == base.keys()
    for name, (a, b) in adapter.matrices.items():
        expected = base[f"{name}.weight"] + b @ a
        torch.testing.assert_close(weights[f"{name}.weight"], expected, atol=1e-5, rtol=0)
    assert len(adapter.matrices) == 14
    assert tuning.can_disable_adapter == ("init" not in settings)


def test_publishing_does_not_touch_a_bit_of_the_base_in_bfloat16(tiny_model: str) -> None:
    model = load(tiny_model, "bfloat16")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tuning = Lora(model, LoraSettings(r=8))
    move(tuning)
    for _ in range(3):
        held(tuning)
    assert all(torch.equal(before[name], p) for name, p in tuning.base())


def test_disabling_the_adapter_gives_the_starting_policy_and_frozen_parts_stay_frozen(tiny_model: str) -> None:
    first = logits(load(tiny_model, "float32"))
    tuning = Lora(load(tiny_model, "float32"), LoraSettings(r=8, freeze_a=True))
    names = [name for name, _ in tuning.trained()]
    assert all("lora_B" in name for name in names)
    move(tuning)
    now = logits(tuning.model)
    with tuning.disable_adapter():
        assert torch.equal(logits(tuning.model), first)
    assert torch.equal(logits(tuning.model), now)
    assert not torch.equal(now, first)
    assert [name for name, _ in tuning.trained()] == names


@pytest.mark.parametrize("init", ["default", "olora"])
def test_the_small_form_loads_in_peft(tiny_model: str, tmp_path: Path, init: str) -> None:
    from peft import PeftModel

    tuning = Lora(load(tiny_model, "float32"), LoraSettings(r=8, init=init, rank_pattern={"q_proj": 4}))
    move(tuning)
    tuning.save_delta(tmp_path, tiny_model)
    loaded = PeftModel.from_pretrained(load(tiny_model, "float32"), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(tuning.model), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("miss", {"r": 8}),
        ("lora", {"r": 8, "use_dora": True}),
        ("lora", {"r": 8, "init_lora_weights": "pissa"}),
        ("randlora", {"r": 8}),
        ("osf", {}),
        ("shira", {"r": 8}),
        ("vera", {"r": 8}),
        ("tinylora", {}),
        ("ia3", {}),
    ],
)
def test_any_method_of_peft_is_published_whole_and_written_small(
    tiny_model: str, tmp_path: Path, name: str, arguments: dict
) -> None:
    from peft import PeftModel

    first = logits(load(tiny_model, "float32"))
    tuning = Adapted(load(tiny_model, "float32"), peft_config(name, arguments))
    torch.testing.assert_close(logits(tuning.model), first, atol=1e-4, rtol=0)
    move(tuning, 0.05)
    assert (logits(tuning.model) - first).abs().max() > 1e-3
    published = load(tiny_model, "float32")
    published.load_state_dict(held(tuning), strict=False)
    torch.testing.assert_close(logits(published), logits(tuning.model), atol=1e-4, rtol=0)
    tuning.save_delta(tmp_path, tiny_model)
    loaded = PeftModel.from_pretrained(load(tiny_model, "float32"), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(tuning.model), atol=1e-4, rtol=0)
    tuning.check()


def test_a_method_whose_layers_cannot_be_merged_is_refused_at_the_start(tiny_model: str) -> None:
    with pytest.raises(ConfigError, match=r"tuning\.lily: .*cannot be merged into this model's weights.*use another"):
        Adapted(load(tiny_model, "float32"), peft_config("lily", {"r": 4}))


def test_lora_xs_trains_r_squared_numbers_of_each_matrix_and_begins_at_the_start(tiny_model: str) -> None:
    first = logits(load(tiny_model, "float32"))
    tuning = LoraXs(load(tiny_model, "float32"), LoraXsSettings(r=4))
    assert [p.shape for _, p in tuning.trained()] == [(4, 4)] * 14
    assert torch.equal(logits(tuning.model), first)
    for _, layer in tuning.layers():
        b = layer.lora_B["default"].weight
        torch.testing.assert_close(b.T @ b, torch.eye(4), atol=1e-5, rtol=0)
    move(tuning)
    assert not torch.equal(logits(tuning.model), first)


def test_lora_sb_begins_with_the_best_approximation_of_a_full_step(tiny_model: str) -> None:
    tuning = LoraXs(load(tiny_model, "float32"), LoraXsSettings(r=6, init="gradient", init_lr=1e-2))
    torch.manual_seed(4)
    gradients = {name: torch.randn_like(p) for name, p in tuning.warmup_parameters().items()}
    before = held(tuning)
    tuning.finish_warmup(gradients)
    assert tuning.warmup_parameters() == {}
    after = held(tuning)
    for name, gradient in gradients.items():
        step = -1e-2 * gradient.sign()
        u, s, v = torch.linalg.svd(step, full_matrices=False)
        best = u[:, :6] @ s[:6].diag() @ v[:6]
        torch.testing.assert_close(after[f"{name}.weight"] - before[f"{name}.weight"], best, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("nothing", {}, "PEFT has no method 'nothing'"),
        ("adalora", {}, "cannot allocate ranks here"),
        ("pvera", {}, "no two passes are of one policy"),
        ("prefix_tuning", {}, "PEFT has no method 'prefix_tuning' for weights"),
        ("miss", {"rr": 3}, "rr"),
    ],
)
def test_a_method_that_cannot_be_is_refused_in_one_line(name: str, arguments: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        peft_config(name, arguments)
    assert "\n" not in str(caught.value)


def test_targets_that_name_nothing_are_refused_in_one_line(tiny_model: str) -> None:
    with pytest.raises(ConfigError, match=r"tuning\.lora\.targets: .*no_such_proj") as caught:
        Lora(load(tiny_model, "float32"), LoraSettings(targets=("no_such_proj",)))
    assert "\n" not in str(caught.value)


def test_a_base_that_changed_is_found(tiny_model: str) -> None:
    tuning = Lora(load(tiny_model, "float32"), LoraSettings(r=8, init="pissa"))
    move(tuning)
    held(tuning)
    tuning.check()
    dict(tuning.base())["model.norm.weight"].data[3] += 1e-6
    with pytest.raises(SelfCheckError, match=r"'model\.norm\.weight' changed where nothing may"):
        tuning.check()
