"""The folder of files that rlpost makes once and reuses in later runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$RLPOST_CACHE``, else ``$XDG_CACHE_HOME/rlpost``, else ``~/.cache/rlpost``."""
    given = os.environ.get("RLPOST_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlpost"
