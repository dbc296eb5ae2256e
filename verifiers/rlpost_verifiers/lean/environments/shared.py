"""One Lean for each process: environments are made for every trajectory, and starting Lean for each would cost seconds.

`shared_verifier` opens a verifier at the first call with some settings, and gives the same one to every later call.
It ends when it is closed (the environment actor closes it with itself), and at the latest with the process: Lean's
processes end with their parent, also where it is killed.
"""

from __future__ import annotations

import atexit
import json
import threading
from typing import Any

from rlpost_verifiers.lean.verifier import LeanVerifier

_LOCK = threading.Lock()
_OPEN: dict[str, SharedVerifier] = {}


class SharedVerifier(LeanVerifier):
    """The `LeanVerifier` that everything in this process shares which asks for the same settings.

    Made by `shared_verifier`; arguments are those of `LeanVerifier`. After `close` the next call makes a new one.
    """

    def close(self) -> None:
        """End Lean for everybody who shares it; repeated calls do nothing."""
        with _LOCK:
            for key in [key for key, one in _OPEN.items() if one is self]:
                del _OPEN[key]
        super().close()


def shared_verifier(**settings: Any) -> SharedVerifier:
    """The process's one verifier with these settings; the first call opens it.

    Args:
        settings: arguments of `LeanVerifier`; ``backend`` is a name.

    Raises:
        RlpostError: as `LeanVerifier`.
    """
    key = json.dumps(settings, sort_keys=True, default=repr)
    with _LOCK:
        if key not in _OPEN:
            _OPEN[key] = SharedVerifier(**settings)
        return _OPEN[key]


def close_all() -> None:
    """End every shared Lean of this process."""
    for one in list(_OPEN.values()):
        one.close()


atexit.register(close_all)
