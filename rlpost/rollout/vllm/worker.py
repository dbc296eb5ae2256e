"""Imported by each of vLLM's worker processes, as ``worker_extension_cls``, before it loads its part of the model."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from rlpost.rollout.vllm import packed_linear

PACKED = "RLPOST_PACKED_WEIGHTS"
"""Environment variable through which an engine on CPU tells its workers whether to pack, ``1`` or ``0``."""

ENGINE = "RLPOST_ENGINE_PID"
"""Environment variable with the process id of the engine that started the workers."""

QUALIFIED_NAME = f"{__name__}.Extension"

_WATCH_S = 1.0
"""Seconds between looks at whether the engine's process is still there."""


class Extension:
    """vLLM adds this to its worker's base classes; all that matters is that this module is imported there."""


def arguments(packed: bool | None) -> dict[str, Any]:
    """In the engine's process, before it starts workers: the engine arguments that bring them here.

    Args:
        packed: as in `rlpost.rollout.vllm.packed_linear.install`; None on GPU.
    """
    os.environ[ENGINE] = str(os.getpid())
    # a forked worker would find this module imported already, and nothing done
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if packed is not None:
        os.environ[PACKED] = str(int(packed))
    return {"worker_extension_cls": QUALIFIED_NAME}


def unlink_shared_memory(model: Any) -> None:
    """In a worker that is ready: take the names of vLLM's shared memory away; the workers keep it until they end.

    vLLM never removes these files (8 MiB per worker in ``/dev/shm``), and a killed worker could not.
    """
    name = os.environ.get("VLLM_DIST_IDENT")
    for file in Path("/dev/shm").glob(f"{name}-*-cpushm_*") if name else ():
        file.unlink(missing_ok=True)


def _end_with(engine: int) -> None:
    """On a busy machine vLLM's workers outlive an engine that is killed by ten seconds and more, spinning."""
    while os.getppid() == engine:
        time.sleep(_WATCH_S)
    os._exit(1)


def _prepare() -> None:
    if PACKED in os.environ:
        packed_linear.install(os.environ[PACKED] == "1")
    threading.Thread(target=_end_with, args=(int(os.environ[ENGINE]),), daemon=True).start()


# the engine's own process imports this module too
if os.environ.get(ENGINE, str(os.getpid())) != str(os.getpid()):
    _prepare()
