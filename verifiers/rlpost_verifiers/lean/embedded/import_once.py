"""Imports the prelude once: Lean's frontend in the fork server, on an environment that every fork inherits.

Part of the fork server's script, so it imports the standard library only. Besides the stable entry points it calls
compiled Lean functions and reads Lean's objects directly. Their binary interface changes between versions of Lean, so
it must be used only with the library it was written for, and trusted only after a comparison with the stable entry
points (`server`).
Forks are short-lived, so nothing is ever released.
"""

import ctypes
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from rlpost_verifiers.lean.embedded.compaction import CompactionError, added_constants, write
    from rlpost_verifiers.lean.embedded.objects import ARRAY, CLOSURE, Functions, boxed, field, items, retain, tag, text
else:
    from compaction import CompactionError, added_constants, write
    from objects import ARRAY, CLOSURE, Functions, boxed, field, items, retain, tag, text

_POINTER, _FLAG = ctypes.c_void_p, ctypes.c_uint8
_PRIVATE_LEVEL, _DEDICATED = 2, 9
_BELIEVER = 1024
# What the command line sets: the first two by its arguments, the others by default.
_OPTIONS = {"autoImplicit": False, "linter.all": False, "Elab.async": True, "internal.cmdlineSnapshots": True}


class ImportOnceError(Exception):
    """Lean refused a step; the message holds all that is known about the reason."""


class ImportOnce:
    """An environment that holds what a compiled module imports, and Lean's frontend for files that start from it.

    Args:
        library: the loaded libleanshared, initialised.
        compiled: path of the compiled module whose imports are wanted; it may be deleted afterwards.
        module: name under which the files checked later are compiled.
        identity: Lean's version and commit, written into the compiled modules.

    Raises:
        ImportOnceError: if Lean cannot import them, or started threads, which no fork would have.
    """

    def __init__(self, library: ctypes.CDLL, compiled: str, module: str, identity: tuple[str, str]) -> None:
        self._library = library
        functions = Functions(library)
        self._call, self._string = functions.call, functions.string
        self._kept: list[ctypes.Array[ctypes.c_uint64]] = []
        threads = len(os.listdir("/proc/self/task"))
        self._call("lean_init_search_path")
        self._call("lean_enable_initializer_execution")
        self._call("lean_io_mark_end_initialization")
        self._options: int = _POINTER.in_dll(library, "l_Lean_Options_empty").value or 0
        for option, value in _OPTIONS.items():
            self._options = self._call("l_Lean_Options_setBool", self._options, self._name(option), _FLAG(value))
        self._file_name = self._constant(_header(1, 1), self._string(f"{module}.lean"))
        nothing = self._constant(_header(ARRAY, 0), 0, 0)
        data = field(self._result("l_Lean_readModuleData", self._string(compiled)), 0)
        self._imports, self._identity = field(data, 0), identity
        environment = self._result(
            "l_Lean_importModules",
            *(field(data, 0), self._options, ctypes.c_uint32(_BELIEVER), nothing),
            # Do not leak the environment, do load extensions, import private parts too, no modules kept elsewhere.
            *(_FLAG(False), _FLAG(True), _FLAG(_PRIVATE_LEVEL), boxed(1)),
        )
        self._environment = self._call("l_Lean_Environment_setMainModule", environment, self._name(module))
        # Objects that are never freed have no changing reference counts, so a fork copies none of their pages.
        for persistent in (self._environment, self._options, field(self._file_name, 0)):
            self._call("lean_mark_persistent", persistent)
        if len(os.listdir("/proc/self/task")) != threads:
            raise ImportOnceError("importing started threads")

    def check(self, module: str, source: str) -> int:
        """Elaborate ``source`` in a fork, print its messages, write ``<module>.olean``, return Lean's exit status.

        ``source`` has no header; the module is written exactly if none of its messages is an error.
        """
        try:
            environment, messages = self._elaborate(source)
            lines = [self._json(message) for message in messages]
            with open(1, "wb", closefd=False) as output:
                output.writelines(lines)
            if any(json.loads(line)["severity"] == "error" for line in lines):
                return 1
            kernel = self._call("lean_elab_environment_to_kernel_env", environment)
            compiled = write(self._imports, added_constants(kernel), *self._identity)
            with open(f"{module}.olean", "wb") as file:
                file.write(compiled)
        except (ImportOnceError, CompactionError) as error:
            # Plain text among Lean's JSON marks the check as crashed.
            os.write(2, f"{error}\n".encode())
            return 1
        return 0

    def _elaborate(self, source: str) -> tuple[int, Iterator[int]]:
        self._call("lean_init_task_manager_using", ctypes.c_uint32(1))
        arguments = (self._string(source), self._environment, self._options, self._file_name)
        # A persistent object may refer only to persistent objects, and these may be shared between threads.
        self._call("lean_mark_persistent", arguments[0])
        function = ctypes.cast(self._library["l_Lean_Elab_process___boxed"], _POINTER).value or 0
        # Arity 5: the last argument stands for the outside world and is supplied by the caller.
        action = self._constant(_header(CLOSURE, 0), function, 5 | len(arguments) << 16, *arguments)
        # On one of Lean's threads, because those have the stack that deep terms need; on a dedicated one, because the
        # pool starts another thread for each of its threads that waits, and address space is limited.
        task = self._call("lean_io_as_task", action, boxed(_DEDICATED))
        result = _ok(self._call("lean_task_get", task), "l_Lean_Elab_process")
        environment, log = field(result, 0), field(result, 1)
        return environment, items(self._call("l_Lean_MessageLog_toList", log))

    def _json(self, message: int) -> bytes:
        return text(self._call("l_Lean_Json_compress", self._call("l_Lean_Message_toJson", retain(message)))) + b"\n"

    def _result(self, symbol: str, *arguments: Any) -> int:
        return _ok(self._call(symbol, *arguments), symbol)

    def _name(self, dotted: str) -> int:
        name = boxed(0)
        for part in dotted.split("."):
            name = self._call("l_Lean_Name_str___override", name, self._string(part))
        return name

    def _constant(self, *words: int) -> int:
        """An object in memory allocated here, which Lean neither counts nor frees."""
        self._kept.append((ctypes.c_uint64 * len(words))(*words))
        return ctypes.addressof(self._kept[-1])


def _header(tag: int, fields: int) -> int:
    return (8 + 8 * fields) << 32 | fields << 48 | tag << 56


def _ok(result: int, symbol: str) -> int:
    """The value that an action returned; constructor 0 means success."""
    if tag(result) != 0:
        raise ImportOnceError(f"{symbol} failed with error {tag(field(result, 0))}")
    return field(result, 0)
