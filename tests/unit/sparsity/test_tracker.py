from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlpost.errors import CheckpointError
from rlpost.sparsity.deltas import TensorDelta, summary
from rlpost.sparsity.tracker import ChangeTracker


def versions(dtype: torch.dtype, count: int = 5) -> list[dict[str, Tensor]]:
    source = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (23, 17), "b.bias": (13,)}
    now = {n: 0.02 * torch.randn(s, generator=source) for n, s in shapes.items()}
    now["b.bias"][:3] = 0.0
    found = []
    for _ in range(count):
        found.append({n: t.to(dtype) for n, t in now.items()})
        now = {n: t + 1e-4 * torch.randn(t.shape, generator=source) for n, t in now.items()}
    found.append({n: t.clone() for n, t in found[0].items()})  # everything is cancelled
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_against_torch(dtype: torch.dtype) -> None:
    all_versions = versions(dtype)
    watch = ChangeTracker(all_versions[0].items())
    touched = {n: torch.zeros_like(t, dtype=torch.bool) for n, t in all_versions[0].items()}
    for before, now in itertools.pairwise(all_versions):
        moved = watch.track(now.items())
        for name, part in moved.items():
            first, old, new = (v[name] for v in (all_versions[0], before, now))
            stepped, changed = old.bfloat16() != new.bfloat16(), first.bfloat16() != new.bfloat16()
            touched[name] |= stepped
            cosine = torch.nn.functional.cosine_similarity(old.double().flatten(), new.double().flatten(), 0)
            assert (part.entries, part.stepped, part.changed) == (new.numel(), int(stepped.sum()), int(changed.sum()))
            assert part.cancelled == int((touched[name] & ~changed).sum())
            assert part.stored_stepped == int((old != new).sum())
            assert part.stored_changed == int((first != new).sum())
            assert part.step_norm == pytest.approx(float((new.double() - old.double()).norm()))
            assert part.norm == pytest.approx(float((new.double() - first.double()).norm()))
            assert part.angle == pytest.approx(math.acos(min(float(cosine), 1.0)), rel=1e-4, abs=1e-7)
    assert moved["a.weight"].changed == 0
    assert moved["a.weight"].cancelled > 100


def test_a_resumed_tracker_continues_as_if_uninterrupted(tmp_path: Path) -> None:
    all_versions = versions(torch.bfloat16)
    straight = ChangeTracker(all_versions[0].items())
    for version in all_versions[1:4]:
        straight.track(version.items())
    straight.save(tmp_path, present=True)
    resumed = ChangeTracker(all_versions[0].items())
    resumed.resume(all_versions[3].items(), tmp_path)
    for version in all_versions[4:]:
        assert resumed.track(version.items()) == straight.track(version.items())
    peer = ChangeTracker([])  # another rank, which only took part in gathering
    peer.resume([], tmp_path)
    assert peer.track([]) == {}
    unwatched = ChangeTracker(all_versions[0].items())
    unwatched.resume(all_versions[3].items(), tmp_path / "nothing")
    assert unwatched.track(all_versions[3].items())["a.weight"].stepped == 0


def test_a_checkpoint_between_two_tracked_versions(tmp_path: Path) -> None:
    all_versions = versions(torch.float32)
    straight = ChangeTracker(all_versions[0].items())
    straight.track(all_versions[1].items())
    straight.save(tmp_path, present=False)  # a checkpoint of version 2, which was not tracked
    resumed = ChangeTracker(all_versions[0].items())
    resumed.resume(all_versions[2].items(), tmp_path)
    assert resumed.track(all_versions[3].items()) == straight.track(all_versions[3].items())


def test_small_angles_are_exact() -> None:
    start = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    at = torch.zeros(2**20)
    at[7] = 1e-4
    (moved,) = ChangeTracker([("w", start)]).track([("w", start + at)]).values()
    assert moved.angle == pytest.approx(moved.step_norm / float(start.norm()), rel=1e-3)


def test_damaged_checkpoints(tmp_path: Path) -> None:
    first = versions(torch.bfloat16)[0]
    (tmp_path / "touched.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ChangeTracker(first.items()).resume(first.items(), tmp_path)
    ChangeTracker({"other": torch.zeros(3)}.items()).save(tmp_path, present=True)
    with pytest.raises(CheckpointError, match="another model"):
        ChangeTracker(first.items()).resume(first.items(), tmp_path)


def test_summary_weighs_by_entries() -> None:
    moved = {"a": TensorDelta(30, 3, 6, 0, 3, 6, 3.0, 1.0, 0.2), "b": TensorDelta(10, 1, 0, 2, 1, 0, 4.0, 0.0, 0.6)}
    found = summary(moved)
    assert found["stepped_share"] == 0.1
    assert found["changed_share"] == 0.15
    assert found["cancelled_share"] == 0.05
    assert found["step_norm"] == 5.0
    assert found["angle"] == pytest.approx(0.3)
    assert summary({}) == {}
