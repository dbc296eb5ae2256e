"""Writes what elaboration added to an environment as a compiled module. Part of the fork server's script.

Lean's own writer clears a table of eight megabytes before it writes the two kilobytes of a short proof, which costs a
quarter of the check. Soundness does not depend on this writer: the reader of the file
(`rlpost_verifiers.lean.embedded.olean`) trusts it as little as one of Lean's.

In addition to the layout in `rlpost_verifiers.lean.embedded.objects`: a big number has its sign and length at 12 and
the address of its digits at 16.
"""

import ctypes
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from rlpost_verifiers.lean.embedded.objects import ARRAY, MAX_CONSTRUCTOR, MPZ, STRING, elements, field, tag, word
else:
    from objects import ARRAY, MAX_CONSTRUCTOR, MPZ, STRING, elements, field, tag, word

BASE = 0x10000000
"""The address the file is written for; any will do, since nothing maps it."""

_HEADER = struct.Struct("<5sBB33s40sQQ")
_ENTRY, _SUBTREE = 0, 1
_ENTRIES_NODE = 0


class CompactionError(Exception):
    """An object is of a kind that no module can contain."""


def added_constants(kernel_environment: int) -> list[int]:
    """Addresses of the constants that do not come from an import, in no particular order.

    They are the second part of the environment's staged map: a tree of arrays whose entries are empty, a name with its
    constant, or a subtree; names whose hashes collide, and their constants, are in two parallel arrays.
    """
    found: list[int] = []
    nodes = [field(field(kernel_environment, 0), 1)]
    while nodes:
        node = nodes.pop()
        if tag(node) != _ENTRIES_NODE:
            found += elements(field(node, 1))
            continue
        for place in elements(field(node, 0)):
            if place & 1:
                continue
            if tag(place) == _ENTRY:
                found.append(field(place, 1))
            elif tag(place) == _SUBTREE:
                nodes.append(field(place, 0))
    return found


def write(imports: int, constants: list[int], version: str, commit: str) -> bytes:
    """The bytes of a module.

    Args:
        imports: address of the array of imports.
        constants: addresses of the constants.
        version: Lean's version.
        commit: the commit Lean was built from.

    Raises:
        CompactionError: for an object that no module can contain.
    """
    writer = _Writer(_HEADER.size)
    for address in (imports, *constants):
        writer.copy(address)
    nothing = writer.array([])
    known = writer.array([writer.place[address] for address in constants])
    root = writer.constructor([writer.place[imports], nothing, known, nothing, nothing])
    header = _HEADER.pack(b"olean", 2, 0, version.encode(), commit.encode(), BASE, root)
    return header + b"".join(writer.parts)


class _Writer:
    def __init__(self, size: int) -> None:
        self.parts: list[bytes] = []
        self.place: dict[int, int] = {}
        self._size = size

    def copy(self, root: int) -> None:
        """Append ``root`` and all objects below it that are not there yet, each after those it refers to."""
        stack = [root]
        while stack:
            address = stack[-1]
            if address in self.place:
                stack.pop()
                continue
            raw, start, fields = _read(address)
            if missing := [each for each in fields if not each & 1 and each not in self.place]:
                stack += missing
                continue
            stack.pop()
            moved = [each if each & 1 else self.place[each] for each in fields]
            if raw[7] == MPZ:
                moved = [BASE + self._size + 24]
            end = start + 8 * len(moved)
            self.place[address] = self._append(raw[:start] + struct.pack(f"<{len(moved)}Q", *moved) + raw[end:])

    def array(self, items: list[int]) -> int:
        """Append an array of objects that have been appended."""
        count = len(items)
        return self._append(struct.pack(f"<iHBBQQ{count}Q", 0, 0, 0, ARRAY, count, count, *items))

    def constructor(self, fields: list[int]) -> int:
        """Append a constructor object with tag 0."""
        count = len(fields)
        return self._append(struct.pack(f"<iHBB{count}Q", 0, 8 + 8 * count, count, 0, *fields))

    def _append(self, raw: bytes) -> int:
        place = BASE + self._size
        raw += bytes(-len(raw) % 8)
        self.parts.append(raw)
        self._size += len(raw)
        return place


def _read(address: int) -> tuple[bytes, int, tuple[int, ...]]:
    """An object's bytes (a big number's digits follow), the offset of its fields, and the fields that are objects."""
    header = word(address)
    kind, count = header >> 56, header >> 48 & 255
    if kind <= MAX_CONSTRUCTOR:
        size, start = header >> 32 & 0xFFFF, 8
    elif kind == ARRAY:
        count, start = word(address + 8), 24
        size = start + 8 * count
    elif kind == STRING:
        count, start = 0, 32
        size = start + word(address + 8)
    elif kind == MPZ:
        digits = ctypes.c_int32.from_address(address + 12).value
        return ctypes.string_at(address, 24) + ctypes.string_at(word(address + 16), 8 * abs(digits)), 16, ()
    else:
        raise CompactionError(f"an object with tag {kind} belongs in no module")
    raw = ctypes.string_at(address, size)
    return raw, start, struct.unpack_from(f"<{count}Q", raw, start)
