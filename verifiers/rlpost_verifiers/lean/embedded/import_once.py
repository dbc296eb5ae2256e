"""The prelude imported once: inside the fork server, Lean's frontend on an environment that every fork inherits.

Part of the fork server's script, so it imports the standard library only. Beside the stable entry points it calls
compiled Lean functions and reads Lean's objects directly. Their binary interface changes between versions of Lean, so
it must be asked for only where the library is the one this was written for, and believed only after a comparison
with the stable entry points (`server`).

An object starts with a header of 8 bytes (reference count, size, number of fields, tag). A constructor's fields
follow; a string has its size at 8 and its bytes at 32. Addresses with the lowest bit set are numbers. A reference count
of zero marks an object that is never freed. Forks end soon, so nothing is ever released.
"""

import ctypes
import json
import os
from collections.abc import Iterator
from typing import Any

_POINTER, _FLAG = ctypes.c_void_p, ctypes.c_uint8
_ARRAY, _CLOSURE = 246, 245
_PRIVATE_LEVEL, _DEDICATED = 2, 9
_BELIEVER = 1024
# What the command line sets: the first two by its arguments, the others by default.
_OPTIONS = {"autoImplicit": False, "linter.all": False, "Elab.async": True, "internal.cmdlineSnapshots": True}


class ImportOnceError(Exception):
    """Lean refused a step; the text is all that is known about why."""


class ImportOnce:
    """An environment that holds what a compiled module imports, and Lean's frontend for files that start from it.

    Args:
        library: libleanshared, initialised.
        compiled: path of the compiled module whose imports are wanted; it may be deleted afterwards.
        module: name that the files checked later are compiled under.

    Raises:
        ImportOnceError: if Lean cannot import them, or started threads, which no fork would have.
    """

    def __init__(self, library: ctypes.CDLL, compiled: str, module: str) -> None:
        self._library = library
        self._kept: list[ctypes.Array[ctypes.c_uint64]] = []
        threads = len(os.listdir("/proc/self/task"))
        self._call("lean_init_search_path")
        self._call("lean_enable_initializer_execution")
        self._call("lean_io_mark_end_initialization")
        self._options: int = _POINTER.in_dll(library, "l_Lean_Options_empty").value or 0
        for option, value in _OPTIONS.items():
            self._options = self._call("l_Lean_Options_setBool", self._options, self._name(option), _FLAG(value))
        self._file_name = self._constant(_header(1, 1), self._string(f"{module}.lean"))
        nothing = self._constant(_header(_ARRAY, 0), 0, 0)
        data = _field(self._result("l_Lean_readModuleData", self._string(compiled)), 0)
        environment = self._result(
            "l_Lean_importModules",
            *(_field(data, 0), self._options, ctypes.c_uint32(_BELIEVER), nothing),
            # Do not leak the environment, do load extensions, import private parts too, no modules kept elsewhere.
            *(_FLAG(False), _FLAG(True), _FLAG(_PRIVATE_LEVEL), _boxed(1)),
        )
        self._environment = self._call("l_Lean_Environment_setMainModule", environment, self._name(module))
        # Objects that are never freed are never counted either, so a fork copies none of the pages they lie on.
        for persistent in (self._environment, self._options, _field(self._file_name, 0)):
            self._call("lean_mark_persistent", persistent)
        if len(os.listdir("/proc/self/task")) != threads:
            raise ImportOnceError("importing started threads")

    def check(self, module: str, source: str) -> int:
        """In a fork: elaborate ``source``, print its messages, write ``<module>.olean``, return Lean's exit status.

        ``source`` has no header; the file is compiled exactly if none of its messages is an error.
        """
        try:
            environment, messages = self._elaborate(source)
            lines = [self._json(message) for message in messages]
            with open(1, "wb", closefd=False) as output:
                output.writelines(lines)
            if any(json.loads(line)["severity"] == "error" for line in lines):
                return 1
            self._result("l_Lean_writeModule", environment, self._string(f"{module}.olean"), _FLAG(True))
        except ImportOnceError as error:
            # Plain text among Lean's JSON marks the check as crashed.
            os.write(2, f"{error}\n".encode())
            return 1
        return 0

    def _elaborate(self, source: str) -> tuple[int, Iterator[int]]:
        self._call("lean_init_task_manager_using", ctypes.c_uint32(1))
        arguments = (self._string(source), self._environment, self._options, self._file_name)
        # An object that is never counted may hold only others of its kind, and these may go from thread to thread.
        self._call("lean_mark_persistent", arguments[0])
        function = ctypes.cast(self._library["l_Lean_Elab_process___boxed"], _POINTER).value or 0
        # Arity 5: the last argument stands for the outside world and is supplied by the caller.
        action = self._constant(_header(_CLOSURE, 0), function, 5 | len(arguments) << 16, *arguments)
        # On a thread of Lean's own, because those have the stack that deep terms need; on one beside the pool, because
        # the pool makes up for each of its threads that waits by another, and address space is limited.
        task = self._call("lean_io_as_task", action, _boxed(_DEDICATED))
        environment, log = _fields(_ok(self._call("lean_task_get", task), "l_Lean_Elab_process"), 2)
        return environment, _items(self._call("l_Lean_MessageLog_toList", log))

    def _json(self, message: int) -> bytes:
        return _text(self._call("l_Lean_Json_compress", self._call("l_Lean_Message_toJson", _retain(message)))) + b"\n"

    def _call(self, symbol: str, *arguments: Any) -> int:
        function = self._library[symbol]
        function.restype = _POINTER
        return function(*(_POINTER(each) if isinstance(each, int) else each for each in arguments)) or 0

    def _result(self, symbol: str, *arguments: Any) -> int:
        return _ok(self._call(symbol, *arguments), symbol)

    def _string(self, text: str) -> int:
        data = text.encode()
        function = self._library["lean_mk_string_from_bytes"]
        function.restype = _POINTER
        return function(ctypes.c_char_p(data), ctypes.c_size_t(len(data)))

    def _name(self, dotted: str) -> int:
        name = _boxed(0)
        for part in dotted.split("."):
            name = self._call("l_Lean_Name_str___override", name, self._string(part))
        return name

    def _constant(self, *words: int) -> int:
        """An object in memory of our own, which Lean neither counts nor frees."""
        self._kept.append((ctypes.c_uint64 * len(words))(*words))
        return ctypes.addressof(self._kept[-1])


def _boxed(number: int) -> int:
    return 2 * number + 1


def _header(tag: int, fields: int) -> int:
    return (8 + 8 * fields) << 32 | fields << 48 | tag << 56


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _tag(address: int) -> int:
    return ctypes.c_uint8.from_address(address + 7).value


def _field(address: int, index: int) -> int:
    return _word(address + 8 + 8 * index)


def _fields(address: int, count: int) -> list[int]:
    return [_field(address, index) for index in range(count)]


def _text(address: int) -> bytes:
    return ctypes.string_at(address + 32, _word(address + 8) - 1)


def _items(address: int) -> Iterator[int]:
    while not address & 1:
        head, address = _fields(address, 2)
        yield head


def _retain(address: int) -> int:
    """One more reference: counted upwards by one thread, downwards where several may hold it."""
    count = ctypes.c_int32.from_address(address)
    count.value += (count.value > 0) - (count.value < 0)
    return address


def _ok(result: int, symbol: str) -> int:
    """What an action returned; constructor 0 says it succeeded."""
    if _tag(result) != 0:
        raise ImportOnceError(f"{symbol} failed with error {_tag(_field(result, 0))}")
    return _field(result, 0)
