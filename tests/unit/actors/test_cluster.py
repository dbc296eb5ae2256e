"""Folders left by killed drivers are swept, those of living ones are not. Not covered: Ray itself."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from rlpost.actors.cluster import sweep


def test_only_folders_of_dead_drivers_are_swept(tmp_path: Path) -> None:
    dead = next(pid for pid in range(4_000_000, 1, -1) if not psutil.pid_exists(pid))
    (tmp_path / f"rlpost-ray-{dead}-x" / "session").mkdir(parents=True)
    kept = [f"rlpost-ray-{os.getpid()}-x", "rlpost-ray-notes", f"other-{dead}-x"]
    for name in kept:
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
