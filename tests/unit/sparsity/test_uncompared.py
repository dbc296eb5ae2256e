"""Every tensor of two checkpoints is compared, counted as not compared, or a reason to refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rlpost.cli import main
from rlpost.errors import DataError
from rlpost.sparsity.analysis import sparsity
from rlpost.sparsity.compare import compare
from rlpost.sparsity.findings import Findings, findings
from rlpost.sparsity.overlap import overlaps
from rlpost.sparsity.pairs import pair
from rlpost.sparsity.render import not_compared
from rlpost.tuning import masks
from tests.support.checkpoints import model, next_up, write

HEAD, ROWS = "lm_head.weight", "model.embed_tokens.weight"
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def whole(dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    tensors = model(dtype=dtype)
    tensors[HEAD] = tensors[ROWS].clone()
    return tensors


def moved(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor + 0.5 if name in names else tensor for name, tensor in tensors.items()}


def found(tmp_path: Path, before: dict[str, Tensor], after: dict[str, Tensor], **options: Any) -> Findings:
    return quick(write(tmp_path / "a", before, **options), write(tmp_path / "b", after, **options))


def quick(before: Path, after: Path, pickles: bool = False) -> Findings:
    """The comparison without a null model, which takes a second."""
    both = pair(before, after, pickles)
    return findings(both, list(compare(both, threads=1)), None, 1e-5)


def changed(result: Findings) -> set[str]:
    return {part.name for part in result.tensors if part.still == 0}


@DTYPES
def test_a_head_that_is_tied_by_name_only_is_compared(tmp_path: Path, dtype: torch.dtype) -> None:
    before = moved(whole(dtype), HEAD)
    result = found(tmp_path, before, moved(before, HEAD), tied=True)
    assert changed(result) == {HEAD}
    assert result.left_out == {}
    assert result.uncompared == (0, 0)


@DTYPES
@pytest.mark.parametrize("stored", [True, False])
def test_a_head_that_training_untied_is_compared_with_the_embeddings(
    tmp_path: Path, dtype: torch.dtype, stored: bool
) -> None:
    before = whole(dtype)
    after = moved(before, HEAD)
    if not stored:
        del before[HEAD]
    result = found(tmp_path, before, after, tied=True)
    assert changed(result) == {HEAD}
    assert not list(not_compared(result))
    back = quick(tmp_path / "b", tmp_path / "a")
    assert changed(back) == {HEAD}


def test_a_mask_of_an_untied_head_is_for_the_starting_weights(tmp_path: Path) -> None:
    before = whole()
    a, b = write(tmp_path / "a", before, tied=True), write(tmp_path / "b", moved(before, HEAD), tied=True)
    sparsity(a, b, mask_out=tmp_path / "mask.safetensors")
    mask = masks.load(tmp_path / "mask.safetensors")
    assert {name for name, bits in mask.tensors.items() if bits.count} == {HEAD}
    assert mask.base == masks.weights_hash((n, t) for n, t in before.items() if n != HEAD)


@DTYPES
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.", "model.language_model."),
        ("", "base_model.model."),
        ("", "module."),
        ("model.", "language_model.model."),
        ("model.", ""),
        ("", "_orig_mod."),
    ],
)
def test_names_that_differ_by_a_prefix_are_matched(tmp_path: Path, one: str, other: str, dtype: torch.dtype) -> None:
    before = {name: t for name, t in model(dtype=dtype).items() if name != HEAD or not one}
    after = {other + name.removeprefix(one): t for name, t in moved(before, ROWS).items()}
    result = found(tmp_path, before, after)
    assert changed(result) == {ROWS}
    assert result.whole.tensors == len(before)
    assert sum(count for *_, count in result.renamed) == len(before)
    assert result.uncompared == (0, 0)
    assert any(line.startswith("names: ") for line in not_compared(result))
    assert changed(quick(tmp_path / "b", tmp_path / "a")) == {other + ROWS.removeprefix(one)}


def test_layers_are_not_matched_by_number(tmp_path: Path) -> None:
    before = model(layers=3)
    after = {name: t for name, t in before.items() if ".layers.1." not in name}
    result = found(tmp_path, before, after)
    assert result.renamed == ()
    assert len(result.only_before) == 3
    lost = sum(t.numel() for n, t in before.items() if ".layers.1." in n)
    assert result.uncompared == (lost, 0)
    assert any(line.startswith(f"not compared: {lost:,} of the entries before (") for line in not_compared(result))


def test_few_shared_tensors_are_refused(tmp_path: Path) -> None:
    before = model()
    after = {name if "norm" in name else f"x.{i}.{i}": t for i, (name, t) in enumerate(before.items())}
    with pytest.raises(DataError, match=r"share 48 of [\d,]+ entries \(e\.g\. .*\); compare two of a kind"):
        found(tmp_path, before, after)


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({"q.weight_scale_inv": torch.ones(1)}, {"q.weight", "q.weight_scale_inv"}),
        ({"q.weight_scale": torch.ones(1), "q.bias": torch.ones(4)}, {"q.weight", "q.weight_scale"}),
    ],
)
def test_eight_bits_with_a_scale_are_left_out(tmp_path: Path, extra: dict[str, Tensor], names: set[str]) -> None:
    before = {**model(), "q.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), **extra}
    result = found(tmp_path, before, {**before, **{n: 2 * t for n, t in extra.items()}})
    assert set(result.left_out) == names
    assert result.uncompared == (17, 17)


def test_eight_bits_without_a_scale_are_numbers(tmp_path: Path) -> None:
    before = {**model(), "q.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}
    result = found(tmp_path, before, {**before, "q.weight": (2 * torch.ones(4, 4)).to(torch.float8_e4m3fn)})
    assert changed(result) == {"q.weight"}


@pytest.mark.parametrize(
    "layer",
    [
        {"q.qweight": torch.ones(2, 4, dtype=torch.int32), "q.scales": torch.ones(4), "q.g_idx": torch.ones(4).int()},
        {
            "q.weight": torch.ones(8, 1, dtype=torch.uint8),
            "q.weight.absmax": torch.ones(4),
            "q.weight.nested": torch.ones(2),
        },
        {"q.weight": torch.ones(4, 4, dtype=torch.int8), "q.SCB": torch.ones(4)},
        {"q.weight_packed": torch.ones(4, 4, dtype=torch.int32), "q.weight_scale": torch.ones(4)},
    ],
)
def test_scales_of_packed_weights_are_left_out_with_them(tmp_path: Path, layer: dict[str, Tensor]) -> None:
    before = {**model(), **layer}
    result = found(tmp_path, before, {n: t * 2 if n in layer else t for n, t in before.items()})
    assert set(result.left_out) == set(layer)
    assert result.uncompared[0] == sum(t.numel() for t in layer.values())


def test_a_quantised_copy_of_a_model_is_refused(tmp_path: Path) -> None:
    before = model()
    after: dict[str, Tensor] = {}
    for name, tensor in before.items():
        after[name] = tensor.to(torch.float8_e4m3fn) if tensor.dim() == 2 else tensor
        if tensor.dim() == 2:
            after[name + "_scale_inv"] = torch.ones(1)
    with pytest.raises(DataError, match=r"share [\d,]+ of [\d,]+ entries .*is left out: quantised, with a scale"):
        found(tmp_path, before, after)


@DTYPES
def test_entries_that_are_no_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    before = model(dtype=dtype)
    after = {n: t.clone() for n, t in before.items()}
    after[ROWS][1, 2] = float("nan")
    with pytest.raises(DataError, match="1 entries are NaN or infinite in the checkpoint after training"):
        found(tmp_path, before, after)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    after = {**model(), ROWS: torch.ones(97, 48)}
    with pytest.raises(DataError, match=r"is \(96, 48\) in .* and \(97, 48\) in"):
        found(tmp_path, model(), after)


def test_a_missing_shard_is_refused_with_and_without_the_index(tmp_path: Path) -> None:
    a = write(tmp_path / "a", model())
    b = write(tmp_path / "b", model(), shards=3)
    (b / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(DataError, match=r"1 of 3 files of the index are missing, e\.g\. model-00002"):
        quick(a, b)
    (b / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match=r"1 of 3 files are missing, e\.g\. model-00002-of-00003\.safetensors"):
        quick(a, b)


def test_a_missing_pickle_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", model()), tmp_path / "b"
    b.mkdir()
    torch.save(dict(list(model().items())[:3]), b / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(DataError, match=r"1 of 2 files are missing, e\.g\. pytorch_model-00002-of-00002\.bin"):
        quick(a, b, pickles=True)


def test_a_tensor_that_only_the_index_knows_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", model()), write(tmp_path / "b", model(), shards=2)
    index = json.loads((b / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.bias"] = "model-00001-of-00002.safetensors"
    (b / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"lack 1 of 10 tensors of the index, e\.g\. model\.norm\.bias"):
        quick(a, b)


def test_other_files_in_the_folder_are_no_tensors_of_the_model(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", model()), write(tmp_path / "b", moved(model(), ROWS))
    save_file({"layers.0.wq": torch.ones(3)}, b / "consolidated.safetensors")
    result = quick(a, b)
    assert result.left_out == {"consolidated.safetensors": "another file next to model.safetensors"}
    assert changed(result) == {ROWS}


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", model()), tmp_path / "b"
    b.mkdir()
    for name in ("one", "two"):
        save_file({ROWS: torch.ones(96, 48)}, b / f"{name}.safetensors")
    with pytest.raises(DataError, match=r"is in one\.safetensors and in two\.safetensors; keep one model's files"):
        quick(a, b)


def adapter(folder: Path, names: list[str], targets: Any, drop: str = "") -> Path:
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors: dict[str, Tensor] = {}
    for name in names:
        out, into = (96, 48) if name == "lm_head" else (48, 48)
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.ones(2, into)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.ones(out, 2)
    save_file({n: t for n, t in tensors.items() if not drop or drop not in n}, folder / "adapter_model.safetensors")
    return folder


Q = [f"model.layers.{k}.self_attn.q_proj" for k in range(2)]


@DTYPES
def test_an_adapter_says_into_how_many_layers_it_was_merged(tmp_path: Path, dtype: torch.dtype) -> None:
    a = write(tmp_path / "a", model(dtype=dtype))
    result = quick(a, adapter(tmp_path / "b", Q, ["q_proj"]))
    assert result.merged == 2
    assert changed(result) == {f"{name}.weight" for name in Q}
    assert "adapter: merged into 2 layers" in list(not_compared(result))


@pytest.mark.parametrize(
    ("names", "targets", "drop", "said"),
    [
        (Q, ["q_proj"], "0.self_attn.q_proj.lora_A", "lora_B.weight' has no lora_A next to it"),
        (Q, ["q_proj"], "0.self_attn.q_proj.lora_B", "lora_A.weight' has no lora_B next to it"),
        (Q, ["q_proj", "v_proj"], "", "its configuration names 'v_proj', its file has no matrix of it"),
        ([*Q, "model.layers.7.self_attn.q_proj"], ["q_proj"], "", "is it another model's adapter"),
        ([*Q, "lm_head"], ["q_proj", "lm_head"], "", "of an output head that .* ties to the embeddings"),
    ],
)
def test_an_adapter_is_merged_whole_or_not(
    tmp_path: Path, names: list[str], targets: Any, drop: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        quick(write(tmp_path / "a", whole(), tied=True), adapter(tmp_path / "b", names, targets, drop))


def test_the_command_says_it_in_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model()
    after = {name.replace("model.", "model.language_model.", 1): t for name, t in before.items()}
    del after["model.language_model.norm.weight"]
    a, b = str(write(tmp_path / "a", before)), str(write(tmp_path / "b", {**after, "v.weight": torch.ones(9)}))
    assert main(["sparsity", a, b]) == 0
    text = capsys.readouterr().out
    assert "names: model. before is model.language_model. after (7 tensors)" in text
    assert "only before: 1 tensors, e.g. model.norm.weight" in text
    assert "not compared: 48 of the entries before (" in text
    assert "not compared: 9 of the entries after (" in text
    assert main(["sparsity", a, b, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["uncompared"] == [48, 9]
    assert document["renamed"] == [["model.", "model.language_model.", 7]]
    assert main(["sparsity", a, str(write(tmp_path / "c", {HEAD: before[HEAD]}))]) == 0
    capsys.readouterr()


def test_overlap_compares_a_head_that_one_run_untied(tmp_path: Path) -> None:
    before = whole()
    start = write(tmp_path / "start", before, tied=True)
    moved_rows = next_up(before[ROWS])
    one = write(tmp_path / "one", {**before, ROWS: moved_rows, HEAD: moved_rows.clone()}, tied=True)
    two = write(tmp_path / "two", moved(before, HEAD), tied=True)
    (pair,), left_out = overlaps(start, [one, two])
    rows = before[ROWS].numel()
    assert pair.changed == (2 * rows, rows)
    assert pair.both == rows
    assert left_out == {}


def test_overlap_matches_prefixes(tmp_path: Path) -> None:
    before = {name: t for name, t in model().items() if name != HEAD}
    one = moved(before, ROWS)
    two = {name.replace("model.", "model.language_model.", 1): t for name, t in one.items()}
    (pair,), left_out = overlaps(
        write(tmp_path / "s", before), [write(tmp_path / "one", one), write(tmp_path / "two", two)]
    )
    assert pair.both == before[ROWS].numel()
    assert left_out == {}


def test_masks_of_other_tensors_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"{name}.safetensors") for name in ("one", "two", "both")]
    for file, names in zip(files, (("q", "k"), ("q", "v", "o")), strict=False):
        masks.save(masks.Mask({name: masks.TensorMask.of(torch.tensor([True, False])) for name in names}), file)
    assert main(["mask", "intersection", *files[:2], "--output", files[2]]) == 0
    text = capsys.readouterr().out
    assert "one.safetensors: 1 tensors are in this mask only, e.g. k" in text
    assert "two.safetensors: 2 tensors are in this mask only, e.g. o" in text
    assert main(["mask", "show", *files[:2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unshared"] == [["k"], ["o", "v"]]
