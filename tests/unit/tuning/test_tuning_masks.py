from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rlpost.errors import DataError
from rlpost.tuning import masks
from rlpost.tuning.masks import Mask, TensorMask


def kept(bits: TensorMask) -> list[int]:
    return bits.index().tolist()


def test_bits_are_row_major_in_little_order() -> None:
    dense = torch.tensor([[True, False, False], [False, True, True], [False, False, True]])
    bits = TensorMask.of(dense)
    assert bits.packed.tolist() == [0b00110001, 0b1]
    assert (bits.size, bits.count, kept(bits)) == (9, 4, [0, 4, 5, 8])
    assert bits.index().dtype == torch.int32
    assert torch.equal(bits.dense(), dense)


def test_the_highest_scores_of_each_tensor_or_of_all() -> None:
    scores = {"a": torch.tensor([[1.0, 9.0], [3.0, 2.0]]), "b": torch.tensor([10.0, 11.0, 0.0, 0.5])}
    assert {n: kept(b) for n, b in masks.top(scores, 0.5).items()} == {"a": [1, 2], "b": [0, 1]}
    assert {n: kept(b) for n, b in masks.top(scores, 0.375, "global").items()} == {"a": [1], "b": [0, 1]}


def test_of_equal_scores_the_earlier_ones_are_kept() -> None:
    assert kept(masks.top({"a": torch.zeros(8)}, 0.25)["a"]) == [0, 1]
    assert kept(masks.top({"a": torch.tensor([0.0, 1.0, 0.0, 0.0])}, 0.5)["a"]) == [0, 1]
    both = masks.top({"a": torch.zeros(3), "b": torch.zeros(3)}, 0.5, "global")
    assert (both["a"].count, both["b"].count) == (3, 0)


@pytest.mark.parametrize(("size", "density", "count"), [(10, 0.25, 2), (10, 0.01, 1), (7, 1.0, 7), (1000, 0.1, 100)])
def test_the_density_is_kept_exactly(size: int, density: float, count: int) -> None:
    assert masks.top({"a": torch.randn(size)}, density)["a"].count == count
    assert masks.random({"a": (size,)}, density, 1)["a"].count == count


@pytest.mark.parametrize("density", [0.0, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match="density is"):
        masks.top({"a": torch.ones(3)}, density)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' hold NaN"):
        masks.top({"a": torch.tensor([1.0, float("nan")])}, 0.5)


def test_random_entries_depend_on_seed_and_name_alone() -> None:
    alone = masks.random({"a": (40, 5)}, 0.1, 3)["a"]
    among = masks.random({"b": (9,), "a": (40, 5)}, {"a": 0.1, "b": 0.5}, 3)
    assert kept(among["a"]) == kept(alone)
    assert among["b"].count == 4
    assert kept(masks.random({"a": (40, 5)}, 0.1, 4)["a"]) != kept(alone)
    counts = np.zeros(200)
    for seed in range(400):
        counts[kept(masks.random({"a": (40, 5)}, 0.1, seed)["a"])] += 1
    # 400 draws at 0.1: mean 40, standard deviation 6
    assert 15 < counts.min() < counts.max() < 68


def test_the_difference_of_two_checkpoints() -> None:
    before = {"a": torch.tensor([0.0, 1.0, 2.0, 3.0]), "b": torch.ones(2)}
    after = {"a": torch.tensor([0.0, 1.0 + 1e-6, 2.5, 3.0]), "b": torch.ones(2)}
    assert {n: kept(b) for n, b in masks.difference(before, after).items()} == {"a": [1, 2], "b": []}
    assert kept(masks.difference(before, after, 1e-5)["a"]) == [2]
    with pytest.raises(DataError, match="'b' is in one checkpoint only"):
        masks.difference(before, {"a": before["a"]})
    with pytest.raises(DataError, match="'b' is \\(2,\\) in one checkpoint, \\(3,\\) in the other"):
        masks.difference(before, {**after, "b": torch.ones(3)})


def test_a_file_holds_the_mask_and_where_it_comes_from(tmp_path: Path) -> None:
    made = Mask(masks.random({"w": (30, 7), "b": (9,)}, 0.2, 1), "abc", {"mask": "random", "seed": 1})
    masks.save(made, tmp_path / "m.safetensors")
    read = masks.load(tmp_path / "m.safetensors")
    assert (read.base, read.made, read.count, read.density) == ("abc", made.made, 44, made.density)
    assert all(torch.equal(read.tensors[n].dense(), made.tensors[n].dense()) for n in ("w", "b"))


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_file_that_is_no_mask_is_named(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "m.safetensors"
    if damage == "other":
        save_file({"w": torch.ones(2)}, file)
    elif damage == "cut":
        masks.save(Mask(masks.random({"w": (300, 7)}, 0.2, 1)), file)
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"m\.safetensors: (cannot be read|its format is None)"):
        masks.load(file)


def test_the_hash_of_weights_knows_names_types_and_bytes() -> None:
    one = [("a", torch.ones(2)), ("b", torch.zeros(2))]
    found = {
        masks.weights_hash(named)
        for named in (
            one,
            one[::-1],
            [("a", torch.ones(2)), ("c", torch.zeros(2))],
            [("a", torch.ones(2)), ("b", -torch.zeros(2))],
            [("a", torch.ones(2).bfloat16()), ("b", torch.zeros(2))],
        )
    }
    assert len(found) == 4
