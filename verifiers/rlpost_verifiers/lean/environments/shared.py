"""One Lean for each process: environments are made for every trajectory, and starting Lean for each would cost seconds.

`shared_verifier` opens a verifier at the first call with some settings, and gives the same one to every later call.
It ends when it is closed (the environment actor closes it with itself), and at the latest with the process: Lean's
processes end with their parent, also where it is killed.
"""

from __future__ import annotations

import atexit
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from rlpost.types import Verdict
from rlpost_verifiers.lean.dojo import states
from rlpost_verifiers.lean.dojo.gym import ReplayGym, TacticGym
from rlpost_verifiers.lean.dojo.repl_gym import ReplGym
from rlpost_verifiers.lean.task import Mode, ProofTask
from rlpost_verifiers.lean.toolchain.repl import LeanRepl
from rlpost_verifiers.lean.verifier import LeanVerifier

_LOCK = threading.Lock()
_OPEN: dict[str, SharedVerifier] = {}


class SharedVerifier(LeanVerifier):
    """The `LeanVerifier` that everything in this process shares which asks for the same settings.

    Made by `shared_verifier`; arguments are those of `LeanVerifier`. It is a `Backend` too, whose checks are repeated
    and remembered as a verifier's are. After `close` the next call makes a new one.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.modes: frozenset[Mode] = self._backend.modes
        self.lock = threading.Lock()

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """See `LeanVerifier.verify_tasks`."""
        return self.verify_tasks(tasks)

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        """See `rlpost_verifiers.lean.backend.Backend.read_statements`."""
        return self._backend.read_statements(tasks)

    def task(self, columns: Mapping[str, Any]) -> ProofTask:
        """The task of a prompt with these columns, without a proof.

        Raises:
            DataError: for columns that form none.
        """
        return self._bare_task(columns, str(columns.get("id") or columns.get("name") or "X"))

    @cached_property
    def gym(self) -> TacticGym:
        """The gym that runs tactics on the same Lean, and remembers them for all; to be used under ``lock``."""
        if isinstance(self._backend, LeanRepl):
            return ReplGym(self._backend, self, types=states)
        return ReplayGym(self, types=states)

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
