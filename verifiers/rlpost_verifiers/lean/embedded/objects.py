"""Lean's runtime objects, read where they lie in memory. Part of the fork server's script.

An object starts with a header of 8 bytes (reference count, size, number of fields, tag). A constructor's fields follow;
a string has its size at 8 and its bytes at 32, an array its length at 8 and its items at 24. Addresses with the lowest
bit set are numbers. A reference count of zero marks an object that is never freed. Source: Lean's ``lean.h``.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

MAX_CONSTRUCTOR, CLOSURE, ARRAY, STRING, MPZ = 244, 245, 246, 249, 250
"""Tags: a constructor's is its number, the others say what else an object is."""

_WORD = ctypes.c_uint64


class Functions:
    """The functions of a loaded Lean, called with objects and returning one; each is looked up once.

    Args:
        library: libleanshared.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._known: dict[str, Any] = {}

    def call(self, symbol: str, *arguments: Any) -> int:
        """What ``symbol`` returns; numbers among the arguments are addresses."""
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
    """What kind of object it is; of a constructor, which."""
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
    """A small number in an address's place."""
    return 2 * number + 1


def keep(address: int) -> int:
    """Mark an object as never to be freed, whoever drops it."""
    if not address & 1:
        ctypes.c_int32.from_address(address).value = 0
    return address


def retain(address: int) -> int:
    """One more reference: counted upwards by one thread, downwards where several may hold it."""
    count = ctypes.c_int32.from_address(address)
    count.value += (count.value > 0) - (count.value < 0)
    return address
