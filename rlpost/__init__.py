"""Reinforcement-learning post-training of language models that checks itself.

``rlpost.train``, ``rlpost.evaluate``, ``rlpost.verify``, ``rlpost.harvest``, ``rlpost.prove``, ``rlpost.plan``,
``rlpost.compare``, ``rlpost.audit`` and ``rlpost.robustness`` are the verbs of the command line; see `rlpost.api`. They
are imported on first use, so that importing a part of the package imports only that part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlpost.api import audit, compare, evaluate, harvest, plan, prove, robustness, train, verify

__all__ = ["audit", "compare", "evaluate", "harvest", "plan", "prove", "robustness", "train", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rlpost import api

    return getattr(api, name)
