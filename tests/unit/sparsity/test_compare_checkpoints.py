"""Pairs of checkpoints whose changes are known exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rlpost.errors import DataError
from rlpost.sparsity.analysis import sparsity
from rlpost.sparsity.compare import compare
from rlpost.sparsity.counting import Counts, bin_edges, bin_of, count
from rlpost.sparsity.expected import Training
from rlpost.sparsity.findings import Findings, layer_of, module_of
from rlpost.sparsity.pairs import pair
from tests.support.checkpoints import model, next_up, write

UP = "model.layers.1.mlp.up_proj.weight"


def found(tmp_path: Path, before: dict[str, Tensor], after: dict[str, Tensor], **options: object) -> Findings:
    return sparsity(write(tmp_path / "before", before), write(tmp_path / "after", after), **options)  # type: ignore[arg-type]


def test_one_entry(tmp_path: Path) -> None:
    before = model()
    after = {n: t.clone() for n, t in before.items()}
    after[UP][7, 3] = next_up(before[UP][7, 3].reshape(1))[0]
    result = found(tmp_path, before, after)
    total = sum(t.numel() for t in before.values())
    assert result.whole.entries == total
    assert result.whole.figures["unchanged"].value == 1 - 1 / total
    assert result.whole.figures["within_ulp"].value == 1.0
    changed = {part.name for part in result.tensors if part.figures["unchanged"].value != 1}
    assert changed == {UP}
    (here,) = (part for part in result.tensors if part.name == UP)
    assert here.figures["still_rows"].value == 1 - 1 / 144
    assert here.figures["still_columns"].value == 1 - 1 / 48
    delta = abs(float(after[UP][7, 3]) - float(before[UP][7, 3]))
    assert here.figures["norm"].value == pytest.approx(delta)
    assert here.figures["largest"].value == pytest.approx(delta)
    assert here.figures["top_1"].value == 1.0
    assert here.figures["outward"].value == 1.0
    assert [part.name for part in result.layers if part.still < part.tensors] == ["1"]
    assert result.whole.still == len(before) - 1


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_share_of_all(tmp_path: Path, share: float) -> None:
    before = model(width=64)
    source = torch.Generator().manual_seed(1)
    after, expected = {}, 0
    for name, tensor in before.items():
        moved = torch.rand(tensor.shape, generator=source) < share
        expected += int(moved.sum())
        after[name] = torch.where(moved, next_up(next_up(tensor)), tensor)
    result = found(tmp_path, before, after)
    total = result.whole.entries
    assert result.whole.figures["unchanged"].value == 1 - expected / total
    assert result.whole.figures["within_ulp"].value == 1 - expected / total
    assert sum(n for _, n, _ in result.whole.sizes) == expected
    assert sum(changed for _, _, changed, _ in result.whole.octaves) == expected
    squares = sum(float(((after[n].double() - before[n].double()) ** 2).sum()) for n in before)
    assert result.whole.figures["norm"].value == pytest.approx(squares**0.5)


def test_one_whole_tensor(tmp_path: Path) -> None:
    before = model()
    result = found(tmp_path, before, {**before, UP: next_up(before[UP])})
    assert {p.name: p.figures["unchanged"].value for p in result.tensors}[UP] == 0.0
    assert result.whole.still == len(before) - 1
    assert {part.name: part.still for part in result.modules}["up_proj"] == 1


def test_tied_weights_count_once(tmp_path: Path) -> None:
    before = model()
    before["lm_head.weight"] = before["model.embed_tokens.weight"].clone()
    moved = next_up(before["model.embed_tokens.weight"])
    after = {**before, "model.embed_tokens.weight": moved, "lm_head.weight": moved.clone()}
    result = sparsity(write(tmp_path / "a", before, tied=True), write(tmp_path / "b", after, tied=True))
    assert result.whole.entries == sum(t.numel() for n, t in before.items() if n != "lm_head.weight")
    assert result.left_out == {"lm_head.weight": "tied to the embeddings"}
    assert result.whole.figures["unchanged"].value == pytest.approx(1 - moved.numel() / result.whole.entries)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_signs_of_zeros_are_no_change(tmp_path: Path, dtype: torch.dtype) -> None:
    before = {**model(dtype=dtype), "zeros": torch.zeros(40, dtype=dtype)}
    result = found(tmp_path, before, {**before, "zeros": -before["zeros"]})
    assert result.whole.figures["unchanged"].value == result.whole.figures["stored_unchanged"].value == 1.0
    assert result.whole.figures["zero_signs"].value == 40
    assert result.null == ""


def test_float32_below_bfloat16_resolution(tmp_path: Path) -> None:
    before = {"w": torch.full((64, 32), 1.0)}
    after = {"w": torch.full((64, 32), 1.0 + 2.0**-12)}
    figures = found(tmp_path, before, after).whole.figures
    assert figures["unchanged"].value == 1.0
    assert figures["stored_unchanged"].value == 0.0
    assert figures["stored_within_atol"].value == 0.0
    assert figures["quantile_50"].value == pytest.approx(2.0**-12, rel=1 / 8)
    assert figures["risen"].value == figures["outward"].value == 1.0


def test_shards_formats_missing_and_extra(tmp_path: Path) -> None:
    before = model(dtype=torch.float32)
    after = {n: t.to(torch.bfloat16) for n, t in before.items() if n != "model.norm.weight"}
    after["extra.weight"] = torch.ones(3)
    after["steps"] = torch.ones(3, dtype=torch.int64)
    a, b = write(tmp_path / "a", before, shards=3), write(tmp_path / "b", after, shards=2)
    result = sparsity(a, b)
    assert result.only_before == ("model.norm.weight",)
    assert result.only_after == ("extra.weight",)
    assert result.left_out == {"steps": "number format I64"}
    # training in bfloat16 begins from the rounded weights
    assert result.whole.figures["unchanged"].value == result.whole.figures["stored_unchanged"].value == 1.0
    assert result.start == 1.0
    other = sparsity(b, a)
    assert other.whole.figures["unchanged"].value == 1.0
    assert (other.whole.figures["stored_unchanged"].value or 0) < 0.01


@pytest.mark.parametrize(
    "dtypes", [("bfloat16", "bfloat16"), ("float32", "float32"), ("float16", "bfloat16"), ("float64", "float32")]
)
def test_every_count_against_torch(dtypes: tuple[str, str]) -> None:
    source = torch.Generator().manual_seed(3)
    exact = torch.randn(60 * 33, generator=source, dtype=torch.float64) * 2.0 ** torch.randint(
        -30, 3, (60 * 33,), generator=source
    )
    old = exact.to(getattr(torch, dtypes[0]))
    new = (exact + torch.randn(60 * 33, generator=source) * 1e-5 * (torch.rand(60 * 33, generator=source) < 0.6)).to(
        getattr(torch, dtypes[1])
    )
    counts, columns = Counts(), np.zeros(33, np.int64)
    count(old, new, columns, 1e-5, counts)
    one, two = old.float(), new.float()
    a, b = one.bfloat16(), two.bfloat16()
    delta = two.double() - one.double()

    def place(x: Tensor) -> Tensor:
        bits = x.view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    zero = (one == 0) & (two == 0)
    expected = [
        (one != two), (a != b), (b.float() - a.float()).abs() > 1e-5, delta.abs() > 1e-5, (place(a) - place(b)).abs() > 1,
        zero & (one.view(torch.int32) != two.view(torch.int32)), delta > 0, two.abs() > one.abs(),
    ]  # fmt: skip
    assert counts.tally[:8].tolist() == [int(x.sum()) for x in expected]
    changed = (a != b).view(60, 33)
    assert counts.tally[8:].tolist() == [int(changed.any(1).sum()), int((changed.sum(1) ** 2).sum()), 0]
    assert columns.tolist() == changed.sum(0).tolist()
    assert float(counts.squares.sum()) == pytest.approx(float((delta**2).sum()))
    assert counts.largest[0] == float(delta.abs().max())
    codes = torch.bincount(a.view(torch.int16).int() & 0x7FFF, minlength=2**15)
    assert counts.codes.sum(axis=0).tolist() == codes.tolist()
    between = one != a.float()
    assert counts.codes[1].sum() == int(between.sum())
    octaves = torch.bincount((a.view(torch.int16).int()[a != b] >> 7) & 0xFF, minlength=256)
    assert counts.octaves.tolist() == octaves.tolist()
    sizes = delta.abs()[delta != 0].numpy()
    assert counts.bins.tolist() == np.histogram(sizes, bin_edges())[0].tolist()
    assert (bin_of(sizes) == np.searchsorted(bin_edges(), sizes, side="right") - 1).all()


def test_pieces_and_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = model(width=64), model(seed=1, width=64)
    both = pair(write(tmp_path / "a", before), write(tmp_path / "b", after))
    whole = list(compare(both, threads=1))
    monkeypatch.setattr("rlpost.sparsity.compare.PIECE", 1024)
    monkeypatch.setattr("rlpost.sparsity.compare._JOB", 4096)
    pieces = list(compare(both, threads=4))
    for one, two in zip(whole, pieces, strict=True):
        assert one.counts.tally.tolist() == two.counts.tally.tolist()
        assert one.codes.tolist() == two.codes.tolist()
        assert (one.columns_changed, one.column_squares) == (two.columns_changed, two.column_squares)


def test_an_adapter_stands_for_its_merge(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
    )
    base = AutoModelForCausalLM.from_config(config)
    base.save_pretrained(tmp_path / "base")
    tuned = peft.get_peft_model(
        base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], use_rslora=True)
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    direct = sparsity(tmp_path / "base", tmp_path / "merged", matrices=None)
    found = sparsity(tmp_path / "base", tmp_path / "adapter", matrices=None)
    assert found.whole.still == direct.whole.still == len(found.tensors) - 4
    assert found.whole.figures["unchanged"].value == pytest.approx(direct.whole.figures["unchanged"].value, abs=1e-3)
    assert found.whole.figures["norm"].value == pytest.approx(direct.whole.figures["norm"].value, rel=1e-4)
    ranks = {one.name: one.stored_rank for one in found.matrices}
    assert ranks["model.layers.1.mlp.up_proj.weight"] in range(4, 33)
    with pytest.raises(DataError, match="adapter; it can stand second"):
        sparsity(tmp_path / "adapter", tmp_path / "merged")


def test_layer_and_module_of_tensor_names() -> None:
    assert layer_of("model.layers.17.mlp.experts.3.w1.weight") == "17"
    assert layer_of("model.embed_tokens.weight") == "outside"
    assert module_of("model.layers.0.self_attn.q_proj.weight") == "q_proj"
    assert module_of("model.layers.0.self_attn.q_proj.bias") == "q_proj.bias"
    assert module_of("transformer.h.0.ln_1.weight") == "ln_1"


def bad(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    good = model()
    cut = write(tmp_path / "cut", good) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    short = write(tmp_path / "short", good) / "model.safetensors"
    short.write_bytes(b"abc")
    garbled = write(tmp_path / "garbled", good) / "model.safetensors"
    garbled.write_bytes(garbled.read_bytes()[:8] + b"{" + b"x" * 5000)
    other = write(tmp_path / "shape", {**good, UP: torch.ones(3, 3)})
    nan = write(tmp_path / "nan", {**good, UP: torch.full_like(good[UP], float("nan"))})
    names = write(tmp_path / "names", {"other": torch.ones(3)})
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "model.gguf").write_bytes(b"GGUF")
    pickle = tmp_path / "pickle"
    pickle.mkdir()
    torch.save(dict(good.items()), pickle / "pytorch_model.bin")
    lost = write(tmp_path / "lost", good, shards=2)
    (lost / "model-00002-of-00002.safetensors").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    return {
        "cut": (cut.parent, "cut short"), "short": (short.parent, "cut short or no safetensors"), "garbled": (garbled.parent, "header is damaged"),
        "shape": (other, "compare two of a kind"), "nan": (nan, "NaN or infinite in the checkpoint after"),
        "names": (names, "share no tensor"), "gguf": (gguf, "GGUF only"), "pickle": (pickle, "add --pickle"),
        "lost": (lost, "1 of 2 files"), "empty": (empty, "no \\*.safetensors"), "absent": (tmp_path / "absent", "no such file"),
    }  # fmt: skip


def test_the_ends_of_the_format(tmp_path: Path) -> None:
    big = torch.tensor([[3.38e38, -3.0e38], [1.0, 0.0]])
    for dtype in (torch.bfloat16, torch.float32):
        one = write(tmp_path / f"a{dtype}", {"w": big.to(dtype)})
        two = write(tmp_path / f"b{dtype}", {"w": -big.to(dtype)})
        found = sparsity(one, two, matrices=None)
        assert found.whole.figures["unchanged"].value == 0.25
        assert found.whole.figures["largest"].value == pytest.approx(6.76e38, rel=0.01)
        assert sum(n for _, n, _ in found.whole.sizes) == 3
        assert found.matrices == []


def test_pruned_and_padded_weights_do_not_spoil_the_fit(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(0)
    before = (0.02 * torch.randn(256, 256, generator=source)).bfloat16()
    before[100:] = 0
    after = before.clone()
    after[:100] = (before[:100].float() + 2e-5 * torch.randn(100, 256, generator=source)).bfloat16()
    result = found(tmp_path, {"w": before}, {"w": after}, matrices=0)
    assert float(result.null.split("deviation ")[1].split()[0]) == pytest.approx(2e-5, rel=0.1)
    assert {e: (c, null) for e, _, c, null in result.whole.octaves}[-127][0] == 0


@pytest.mark.parametrize("dtypes", [("float16", "bfloat16"), ("float32", "float16")])
def test_rounding_to_another_format_is_no_training(tmp_path: Path, dtypes: tuple[str, str]) -> None:
    before = model(dtype=getattr(torch, dtypes[0]))
    after = {n: t.to(getattr(torch, dtypes[1])) for n, t in before.items()}
    figures = found(tmp_path, before, after).whole.figures
    assert figures["unchanged"].value == figures["stored_unchanged"].value == 1.0


def test_the_null_model_includes_weight_decay_and_zeros(tmp_path: Path) -> None:
    training = Training(lr=1e-5, steps=1000, weight_decay=0.1)
    source = torch.Generator().manual_seed(0)
    before = {"w": torch.ones(200, 100), "bias": torch.zeros(20_000)}
    after = {n: training.decay * t + 3e-4 * torch.randn(t.shape, generator=source) for n, t in before.items()}
    result = found(tmp_path, before, after, training=training, matrices=0)
    by_name = {part.name: part.figures for part in result.tensors}
    for name, figure in (("w", "outward"), ("w", "stored_within_atol"), ("bias", "outward")):
        one = by_name[name][figure]
        assert one.value == pytest.approx(one.null, abs=0.06), (name, figure)
    assert by_name["w"]["risen"].null is None


def test_an_adapter_that_has_taken_part_of_the_base_is_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", model())
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    for change, reason in (
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"r": 0}, "damaged"),
        ({"use_dora": True}, "use_dora"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(DataError, match=reason):
            sparsity(base, adapter)


KINDS = ["cut", "short", "garbled", "shape", "nan", "names", "gguf", "pickle", "lost", "empty", "absent"]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_line(tmp_path: Path, kind: str) -> None:
    good = write(tmp_path / "good", model())
    folder, reason = bad(tmp_path)[kind]
    with pytest.raises(DataError, match=reason) as caught:
        sparsity(good, folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        sparsity(folder, good)


def test_the_same_folder_by_another_name(tmp_path: Path) -> None:
    good = write(tmp_path / "good", model())
    (tmp_path / "link").symlink_to(good)
    with pytest.raises(DataError, match="are the same"):
        sparsity(good, tmp_path / "link")


def test_a_pickle_if_asked(tmp_path: Path) -> None:
    good = write(tmp_path / "good", model())
    folder, _ = bad(tmp_path)["pickle"]
    assert sparsity(good, folder, pickles=True).whole.figures["unchanged"].value == 1.0


def test_a_pickle_that_would_run_code(tmp_path: Path) -> None:
    good = write(tmp_path / "good", model())
    folder = tmp_path / "evil"
    folder.mkdir()
    torch.save({"w": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="not a pickle of tensors only"):
        sparsity(good, folder, pickles=True)


def test_inspected_matrices_are_compared_with_shuffled_entries_and_the_null_model(tmp_path: Path) -> None:
    before = {"a.weight": (0.02 * torch.randn(96, 64, generator=torch.Generator().manual_seed(0))).bfloat16()}
    low = torch.randn(96, 2, generator=torch.Generator().manual_seed(1)) @ torch.randn(
        2, 64, generator=torch.Generator().manual_seed(2)
    )
    after = {"a.weight": before["a.weight"].float() + 1e-3 * low}
    result = found(tmp_path, {n: t.float() for n, t in before.items()}, after, matrices=None, training=Training())
    (one,) = result.matrices
    assert one.stored_rank is not None
    assert one.stored_rank < 64  # two, and the rank that float32's rounding adds
    assert one.shuffled_rank == 64
    assert one.null is not None
    assert one.null.changed == pytest.approx(one.found.changed, rel=0.1)
    save_file(after, str(tmp_path / "single.safetensors"))
    again = sparsity(tmp_path / "before" / "model.safetensors", tmp_path / "single.safetensors", matrices=0)
    assert again.whole.figures == result.whole.figures
