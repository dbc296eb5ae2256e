from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch

from rlpost.cli import main
from rlpost.tuning import masks
from tests.support.checkpoints import model, next_up, write

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    before = model()
    source = torch.Generator().manual_seed(0)
    after = {n: torch.where(torch.rand(t.shape, generator=source) < 0.3, next_up(t), t) for n, t in before.items()}
    return write(tmp_path / "before", before), write(tmp_path / "after", after)


def test_the_mask_written_in_pieces_equals_that_of_whole_tensors(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpost.sparsity.compare.PIECE", 1024)
    monkeypatch.setattr("rlpost.sparsity.compare._JOB", 2048)
    file = tmp_path / "mask.safetensors"
    assert main(["sparsity", *map(str, folders), "--mask-out", str(file), "--matrices", "0", "--json"]) == 0
    from safetensors.torch import load_file

    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    made, expected = masks.load(file), masks.difference(before, after)
    assert made.tensors.keys() == expected.keys()
    assert all(torch.equal(made.tensors[n].dense(), expected[n].dense()) for n in expected)
    assert made.base == masks.weights_hash(before.items())
    assert made.made["mask"] == "difference"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["after", "before", "mask.safetensors"]
    whole = tmp_path / "whole.safetensors"
    masks.save(masks.Mask(expected, made.base, made.made), whole)
    assert masks.load(whole).density == made.density


def test_the_output_as_text_html_plots_and_json(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    arguments = [
        "sparsity",
        *map(str, folders),
        "--by",
        "tensor",
        "--by",
        "layer",
        "--html",
        str(page),
        "--plots",
        str(tmp_path / "plots"),
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"{UP}  144×48  unchanged 0." in out
    assert "fitted to the changed share" in out
    assert str(page) in out
    text = page.read_text()
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert text.count("<svg") == 4
    assert {p.suffix for p in (tmp_path / "plots").iterdir()} == {".svg", ".png"}
    assert main([*arguments[:3], "--json", "--lr", "1e-6", "--steps", "50"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["null"].startswith("AdamW on noise: lr 1e-06, 50 steps")
    assert document["whole"]["figures"]["unchanged"]["value"] == pytest.approx(0.7, abs=0.02)


def test_bfloat16_masters_have_a_null_of_their_own(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    null = ["--lr", "1e-5", "--steps", "100", "--masters", "bfloat16", "--weight-decay", "0.01", "--schedule", "cosine"]
    assert main(["sparsity", *map(str, folders), "--json", *null]) == 0
    document = json.loads(capsys.readouterr().out)
    figures = document["whole"]["figures"]
    assert 0.8 < figures["unchanged"]["null"] < 1.0
    assert figures["within_ulp"]["null"] is None
    assert document["matrices"][0]["null"] is None


def test_overlap_prints_both_chances(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "other", {n: next_up(t) for n, t in model().items()})
    arguments = ["overlap", str(folders[1]), str(other), "--base", str(folders[0])]
    assert main([*arguments, "--plots", str(tmp_path / "plots")]) == 0
    assert "|w|-matched" in capsys.readouterr().out
    assert (tmp_path / "plots" / "overlap_beyond_chance.svg").is_file()
    assert main([*arguments, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["pairs"]
    assert one["share_of_first"] == 1.0
    assert one["chance"]["magnitude"][0] == 1.0


def test_names_are_as_short_as_they_can_be() -> None:
    from rlpost.sparsity.render import short_names

    assert list(short_names(["/r/x/a/model", "/r/x/b/model"]).values()) == ["a", "b"]
    assert list(short_names(["a", "b"]).values()) == ["a", "b"]
    assert list(short_names(["/r/a", "/r/a/b"]).values()) == ["a", "a/b"]
    assert list(short_names(["/r/a/x/m", "/r/b/y/m"]).values()) == ["a/x", "b/y"]
    assert short_names(["only/one"]) == {"only/one": "only/one"}


def test_masks_are_combined(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (str(tmp_path / f"{name}.safetensors") for name in "abc")
    assert main(["sparsity", *map(str, folders), "--mask-out", a, "--matrices", "0", "--json"]) == 0
    assert main(["mask", "random", a, "--output", b, "--seed", "3"]) == 0
    capsys.readouterr()

    def made(*arguments: str) -> masks.Mask:
        assert main(["mask", *arguments, "--output", c]) == 0
        return masks.load(c)

    one, two = masks.load(a), masks.load(b)
    assert two.count == one.count
    both, either, rest = made("intersection", a, b), made("union", a, b), made("complement", a)
    assert either.count == one.count + two.count - both.count
    assert rest.count == sum(bits.size for bits in one.tensors.values()) - one.count
    assert masks.intersection(one, rest).count == 0
    assert masks.union(one, rest).density == 1.0
    few = made("thin", a, "--density", "0.001")
    assert 0 < few.count < 0.01 * one.count
    thinned = made("thin", a, "--density", "0.1")
    assert masks.intersection(one, thinned).count == thinned.count
    assert thinned.density == pytest.approx(0.1, abs=0.01)
    capsys.readouterr()
    assert main(["mask", "show", a, b, "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"]
    assert agreement["both"] == both.count
    assert abs(agreement["both"] - agreement["chance"]) < 5 * agreement["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["sparsity", "BEFORE", "BEFORE"], "are the same"),
        (["sparsity", "BEFORE", "nowhere"], "no such file"),
        (["sparsity", "BEFORE", "AFTER", "--matrices", "some"], "--matrices is 'some'"),
        (["sparsity", "BEFORE", "AFTER", "--lr", "1e-6"], "give both or neither"),
        (["sparsity", "BEFORE", "AFTER", "--tolerance", "-1"], "use 0 or more"),
        (["sparsity", "BEFORE", "AFTER", "--tolerance", "nan"], "use 0 or more"),
        (["sparsity", "BEFORE", "AFTER", "--threads", "0"], "use 1 or more"),
        (["sparsity", "BEFORE", "AFTER", "--html", "BEFORE"], "is a folder"),
        (["sparsity", "BEFORE", "AFTER", "--betas", "1", "1"], "betas are"),
        (["sparsity", "BEFORE", "AFTER", "--mask-out", "/nowhere/m.safetensors"], "cannot be written"),
        (["sparsity", "BEFORE", "AFTER", "--mask-out", "AFTER/model.safetensors"], "no place for a mask"),
        (["sparsity", "BEFORE", "AFTER", "--mask-out", "AFTER"], "no place for a mask"),
        (["sparsity", "BEFORE", "x" * 300], "cannot be read"),
        (["sparsity", "BEFORE", ""], "no such file"),
        (["overlap", "AFTER", "--base", "BEFORE"], "give 2 to"),
        (["mask", "union", "m"], "give 2"),
        (["mask", "show", "m"], "cannot be read"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(
    folders: tuple[Path, Path], arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"BEFORE": str(folders[0]), "AFTER": str(folders[1])}
    assert main([_place(word, words) for word in arguments]) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert err.count("\n") == 1


def _place(word: str, words: dict[str, str]) -> str:
    first, slash, rest = word.partition("/")
    return words[first] + slash + rest if first in words else word


def test_what_was_printed_before_a_bad_tensor_stays(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = {**model(seed=1), "model.norm.weight": torch.full((48,), torch.nan, dtype=torch.bfloat16)}
    broken = write(tmp_path / "broken", after)
    assert main(["sparsity", str(folders[0]), str(broken), "--by", "tensor"]) == 2
    captured = capsys.readouterr()
    assert "model.embed_tokens.weight  96×48  unchanged 0.0" in captured.out
    assert "'model.norm.weight': 48 entries are NaN or infinite in the checkpoint after training" in captured.err


def test_no_permission(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (folders[1] / "model.safetensors").chmod(stat.S_IWUSR)
    before = os.geteuid()
    try:
        if before == 0:  # root may read everything
            os.seteuid(65534)
        assert main(["sparsity", *map(str, folders)]) == 2
    finally:
        os.seteuid(before)
    assert "no permission" in capsys.readouterr().err
