"""Reads Lean's runtime objects in place in memory. Part of the fork server's script.

An object starts with a header of 8 bytes (reference count, size, number of fields, tag). A constructor's fields follow;
a string has its size at 8 and its bytes at 32, an array its length at 8 and its items at 24. Addresses with the lowest
bit set are numbers. A reference count of zero marks an object that is never freed. Source: Lean's ``lean.h``.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

MAX_CONSTRUCTOR, CLOSURE, ARRAY, STRING, MPZ = 244, 245, 246, 249, 250
"""Tags: a constructor's tag is its number; the others name the other kinds of object."""

_WORD = ctypes.c_uint64


class Functions:
    """The functions of a loaded Lean, which take objects and return one; each is looked up once.

    Args:
        library: the loaded libleanshared.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._known: dict[str, Any] = {}

    def call(self, symbol: str, *arguments: Any) -> int:
        """Call ``symbol``; integers among the arguments are passed as addresses."""
        function = self._known.get(symbol)
        if function is None:
            function = self._known[symbol] = self._library[symbol]
            function.restype = ctypes.c_void_p
        return function(*(ctypes.c_void_p(each) if isinstance(each, int) else each for each in arguments)) or 0

    def string(self, content: str) -> int:
        """A new string."""
        data = content.encode()
        return self.call("lean_mk_string_from_bytes", ctypes.c_char_p(data), ctypes.c_size_t(len(data)))


def word(address: int) -> int:
    """The eight bytes at an address."""
    return _WORD.from_address(address).value


def tag(address: int) -> int:
    """The tag of an object: its kind, or for a constructor its number."""
    return ctypes.c_uint8.from_address(address + 7).value


def field(address: int, index: int) -> int:
    """A field of a constructor."""
    return word(address + 8 + 8 * index)


def elements(array: int) -> Iterator[int]:
    """The items of an array."""
    return iter((_WORD * word(array + 8)).from_address(array + 24))


def items(address: int) -> Iterator[int]:
    """The items of a list."""
    while not address & 1:
        yield field(address, 0)
        address = field(address, 1)


def text(address: int) -> bytes:
    """The bytes of a string."""
    return ctypes.string_at(address + 32, word(address + 8) - 1)


def boxed(number: int) -> int:
    """A small number in the tagged form that replaces an address."""
    return 2 * number + 1


def keep(address: int) -> int:
    """Mark an object as never to be freed, and return it."""
    if not address & 1:
        ctypes.c_int32.from_address(address).value = 0
    return address


def retain(address: int) -> int:
    """Add a reference and return the object; the count is negative where several threads may hold it."""
    count = ctypes.c_int32.from_address(address)
    count.value += (count.value > 0) - (count.value < 0)
    return address
