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
"""Seconds between checks that the engine's process is alive."""


class Extension:
    """vLLM adds this to its worker's base classes; its only purpose is that this module is imported there."""


def arguments(packed: bool | None) -> dict[str, Any]:
    """Set the workers' environment, and return the engine arguments with which they import this module.

    Call it in the engine's process before it starts workers.

    Args:
        packed: whether workers use vLLM's packed kernels (`rlpost.rollout.vllm.packed_linear.install`); None on GPU.
    """
    os.environ[ENGINE] = str(os.getpid())
    # a forked worker would inherit this module as already imported, and `_prepare` would not run
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if packed is not None:
        os.environ[PACKED] = str(int(packed))
    return {"worker_extension_cls": QUALIFIED_NAME}


def unlink_shared_memory(model: Any) -> None:
    """In a ready worker, unlink vLLM's shared memory; the workers keep it mapped until they end.

    vLLM never removes these files (8 MiB per worker in ``/dev/shm``), and a killed worker could not.
    """
    name = os.environ.get("VLLM_DIST_IDENT")
    for file in Path("/dev/shm").glob(f"{name}-*-cpushm_*") if name else ():
        file.unlink(missing_ok=True)


def _end_with(engine: int) -> None:
    """End this worker after its engine's process has ended.

    On a busy machine vLLM's workers would otherwise keep spinning for ten seconds or more after the engine was killed.
    """
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
