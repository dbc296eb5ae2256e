"""Undoing an engine's stacking and padding by hand. Not covered: vLLM itself (tests/integration)."""

from __future__ import annotations

import pytest
import torch

from rlpost.rollout.vllm.readback import hugging_face_views, join_shards, shard_views

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
SHAPES = {
    "l.0.attn.q_proj.weight": (4, 2),
    "l.0.attn.k_proj.weight": (2, 2),
    "l.0.attn.v_proj.weight": (2, 2),
    "l.0.attn.v_proj.bias": (2,),
    "l.0.attn.q_proj.bias": (4,),
    "l.0.attn.k_proj.bias": (2,),
    "embed.weight": (3, 2),
    "norm.weight": (2,),
}
QKV, BIAS = torch.arange(16.0).reshape(8, 2), torch.arange(8.0)
EMBED = torch.arange(8.0).reshape(4, 2)
HELD = {
    "l.0.attn.qkv_proj.weight": QKV,
    "l.0.attn.qkv_proj.bias": BIAS,
    "embed.weight": EMBED,
    "norm.weight": torch.ones(2),
}


def test_stacked_rows_are_taken_apart_in_order() -> None:
    views = hugging_face_views(HELD, PACKED, SHAPES)
    assert views.keys() == SHAPES.keys()
    expected = {
        "l.0.attn.q_proj.weight": QKV[:4],
        "l.0.attn.k_proj.weight": QKV[4:6],
        "l.0.attn.v_proj.weight": QKV[6:],
        "l.0.attn.v_proj.bias": BIAS[6:],
        # the engine pads the vocabulary to four rows
        "embed.weight": EMBED[:3],
        "norm.weight": torch.ones(2),
    }
    for name, value in expected.items():
        view = views[name]
        assert view is not None
        assert torch.equal(view, value), name


def test_a_view_shows_later_changes_of_the_engines_memory() -> None:
    held = {name: value.clone() for name, value in HELD.items()}
    view = hugging_face_views(held, PACKED, SHAPES)["l.0.attn.k_proj.weight"]
    held["l.0.attn.qkv_proj.weight"][4] = -1.0
    assert view is not None
    assert view[0].tolist() == [-1.0, -1.0]


def test_what_the_engine_does_not_hold_is_none() -> None:
    shapes = {"absent.weight": (1,), "embed.weight": (5, 2), "norm.weight": (2, 1), "l.1.attn.q_proj.weight": (4, 2)}
    assert set(hugging_face_views(HELD, PACKED, shapes).values()) == {None}


def test_a_part_whose_earlier_parts_are_not_published_cannot_be_placed() -> None:
    assert hugging_face_views(HELD, PACKED, {"l.0.attn.v_proj.weight": (2, 2)}) == {"l.0.attn.v_proj.weight": None}


def test_a_scalar_parameter_is_read() -> None:
    view = hugging_face_views({"scale": torch.tensor(3.0)}, {}, {"scale": ()})["scale"]
    assert view is not None
    assert view.item() == 3.0


def test_two_ranks_shards_make_the_published_tensors() -> None:
    whole = {
        "l.0.attn.q_proj.weight": QKV[:4],
        "l.0.attn.k_proj.weight": QKV[4:6],
        "l.0.attn.v_proj.weight": QKV[6:],
        "o.weight": torch.arange(8.0).reshape(2, 4),
        "embed.weight": EMBED[:3],
        "norm.weight": torch.ones(2),
    }
    shapes = {name: tuple(value.shape) for name, value in whole.items()}
    ranks = [
        {
            # each rank stacks its own rows of q, k and v
            "l.0.attn.qkv_proj.weight": torch.cat([QKV[2 * r : 2 * r + 2], QKV[4 + r : 5 + r], QKV[6 + r : 7 + r]]),
            "o.weight": whole["o.weight"][:, 2 * r : 2 * r + 2],
            # the vocabulary is padded to four rows
            "embed.weight": EMBED[2 * r : 2 * r + 2],
            "norm.weight": torch.ones(2),
        }
        for r in range(2)
    ]
    views = [shard_views(held, PACKED, shapes, 2) for held in ranks]
    for name, value in whole.items():
        joined = join_shards([view[name] for view in views], shapes[name])  # pyright: ignore
        assert joined is not None
        assert torch.equal(joined, value), name


def test_key_heads_that_ranks_hold_in_copies_are_not_taken_for_shares() -> None:
    # four query rows in two shards, but both key rows on each rank
    shapes = {"l.0.attn.q_proj.weight": (4, 2), "l.0.attn.k_proj.weight": (2, 2), "l.0.attn.v_proj.weight": (2, 2)}
    held = {"l.0.attn.qkv_proj.weight": torch.zeros(6, 2)}
    assert set(shard_views(held, PACKED, shapes, 2).values()) == {None}


def test_copies_that_differ_between_ranks_are_an_error() -> None:
    assert join_shards([torch.ones(2)] * 2, (2,)) is not None
    with pytest.raises(ValueError, match="different copies"):
        join_shards([torch.ones(2), torch.zeros(2)], (2,))


def test_parts_too_small_for_the_tensor_make_none() -> None:
    assert join_shards([torch.ones(1, 2)] * 2, (3, 2)) is None
    assert join_shards([torch.ones(1, 3)] * 2, (2, 2)) is None
