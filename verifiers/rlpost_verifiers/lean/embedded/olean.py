"""Reads a compiled Lean module (``.olean`` format 2) without Lean: which constants it holds and what they use.

The file may come from the elaboration of untrusted text, so every pointer and size is checked against the file and
the number of objects visited is bounded; any violation raises `OleanError`. The layout is that of Lean's
runtime objects: an 8-byte header (reference count, size, number of fields, tag), then fields that are either tagged
small numbers (lowest bit set) or addresses relative to the base address the file was written for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

Name = tuple[str | int, ...]
"""A hierarchical name by its parts, outermost first."""

Kind = Literal["axiom", "definition", "theorem", "opaque", "quotient", "inductive", "constructor", "recursor"]

_KINDS: tuple[Kind, ...] = (
    *("axiom", "definition", "theorem", "opaque"),
    *("quotient", "inductive", "constructor", "recursor"),
)
_WITH_VALUE: frozenset[Kind] = frozenset({"definition", "theorem", "opaque"})
_SAFE = 1
_OPAQUE_HINT, _ABBREVIATION_HINT, _REGULAR_HINT = 0, 1, 2
_HEADER = struct.Struct("<5sBB33s40sQQ")
_FIRST_OBJECT = 0x58
_MOST_PARTS = 1000
_LEVEL_FIELDS = (0, 1, 2, 2, 1)
_MAX_CONSTRUCTOR, _ARRAY, _STRING, _MPZ = 244, 246, 249, 250
VARIABLE, SORT, CONSTANT, LITERAL, METADATA, PROJECTION = 0, 3, 4, 9, 10, 11
SUBEXPRESSIONS: dict[int, tuple[int, ...]] = {
    **{VARIABLE: (), SORT: (), CONSTANT: (), LITERAL: ()},
    **{5: (0, 1), 6: (1, 2), 7: (1, 2), 8: (1, 2, 3), METADATA: (1,), PROJECTION: (2,)},
}
"""Which fields of an expression are expressions, by its tag. Free and meta variables (1, 2) occur in no module."""


class OleanError(ValueError):
    """The bytes are not a module this reader understands."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant of a module.

    Attributes:
        name: its full name.
        kind: the kind of declaration that made it.
        parameters: names of its universe parameters.
        expressions: addresses of its type and, where it has one, its value.
        constructors: names of an inductive type's constructors, else empty.
        safe: False for an unsafe or partial definition; True for all other kinds.
        height: unfolding height of a definition, -1 for one that is always, -2 for one that is never unfolded.
    """

    name: Name
    kind: Kind
    parameters: tuple[Name, ...]
    expressions: tuple[int, ...]
    constructors: tuple[Name, ...] = ()
    safe: bool = True
    height: int = -2


class Olean:
    """A module's imports and constants.

    Attributes:
        version: Lean's version, e.g. ``4.35.0``.
        commit: the commit Lean was built from, 40 hexadecimal digits.
        imports: names of the modules imported directly.
        constants: all constants by name.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise OleanError(f"{len(data)} bytes are too few for a module")
        magic, layout, _, version, commit, self._base, root = _HEADER.unpack_from(data)
        if magic != b"olean" or layout != 2:
            raise OleanError(f"magic {magic!r}, format {layout}: only format 2 is known")
        self.version = version.split(b"\0")[0].decode("ascii", "replace")
        self.commit = commit.decode("ascii", "replace")
        # An object takes 8 bytes or more and is read a few times: only a file with cycles needs more reads.
        self._data, self._left = data, len(data)
        self._names: dict[int, Name] = {}
        self._uses: dict[Name, frozenset[Name]] = {}
        _, fields = self._constructor(root, 5)
        self.imports = tuple(self.name(self._constructor(entry, 1)[1][0]) for entry in self._array(fields[0]))
        self.constants: dict[Name, Constant] = {}
        for address in self._array(fields[2]):
            constant = self._constant(address)
            if not constant.name:
                raise OleanError("a constant without a name")
            if constant.name in self.constants:
                raise OleanError(f"{dotted(constant.name)} is declared twice")
            self.constants[constant.name] = constant

    def uses(self, name: Name) -> frozenset[Name]:
        """Every constant that the type, value or constructors of ``name`` mention.

        Raises:
            KeyError: if the module holds no such constant.
            OleanError: if its expressions cannot be read.
        """
        found = self._uses.get(name)
        if found is None:
            constant = self.constants[name]
            found = self.mentioned(constant.expressions) | frozenset(constant.constructors)
            self._uses[name] = found
        return found

    def mentioned(self, roots: tuple[int, ...]) -> frozenset[Name]:
        """Every constant that the expressions at ``roots`` mention."""
        names: set[Name] = set()
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            address = stack.pop()
            if address in seen:
                continue
            seen.add(address)
            tag, fields = self.expression(address)
            if tag in (CONSTANT, PROJECTION):
                names.add(self.name(fields[0]))
            stack.extend(fields[index] for index in SUBEXPRESSIONS[tag])
        return frozenset(names)

    def expression(self, address: int) -> tuple[int, tuple[int, ...]]:
        """Tag and fields of an expression; `SUBEXPRESSIONS` tells which fields are expressions.

        Raises:
            OleanError: for anything that is not an expression.
        """
        tag, fields = self._constructor(address)
        inner = SUBEXPRESSIONS.get(tag)
        if inner is None or len(fields) <= max(inner, default=0):
            raise OleanError(f"expression with tag {tag} and {len(fields)} fields at {address:#x}")
        return tag, fields

    def level(self, address: int) -> tuple[int, tuple[int, ...]]:
        """Tag and fields of a universe level: zero, successor, maximum, impredicative maximum, parameter.

        Raises:
            OleanError: for anything else.
        """
        tag, fields = self._constructor(address)
        if tag >= len(_LEVEL_FIELDS) or len(fields) < _LEVEL_FIELDS[tag]:
            raise OleanError(f"universe level with tag {tag} and {len(fields)} fields at {address:#x}")
        return tag, fields[: _LEVEL_FIELDS[tag]]

    def literal(self, address: int) -> int | str:
        """A natural number or a string."""
        tag, (value, *_) = self._constructor(address, 1)
        return self.number(value) if tag == 0 else self._string(value)

    def number(self, address: int) -> int:
        """A natural number of any size."""
        if address & 1:
            return address >> 1
        offset = self._tagged(address, _MPZ, 24)
        words, digits = struct.unpack_from("<iQ", self._data, offset + 12)
        if words < 0:
            raise OleanError(f"a negative number at {address:#x}")
        place = self._offset(digits, 8 * words)
        return int.from_bytes(self._data[place : place + 8 * words], "little")

    def name(self, address: int) -> Name:
        """A hierarchical name."""
        parts: list[int] = []
        known: Name = ()
        while not address & 1:
            if address in self._names:
                known = self._names[address]
                break
            parts.append(address)
            if len(parts) > _MOST_PARTS:
                raise OleanError(f"a name of more than {_MOST_PARTS} parts")
            _, fields = self._constructor(address, 2)
            address = fields[0]
        for address in reversed(parts):
            tag, fields = self._constructor(address, 2)
            known = (*known, self._string(fields[1]) if tag == 1 else self._small(fields[1]))
            self._names[address] = known
        return known

    def items(self, address: int) -> list[int]:
        """The elements of a list."""
        found: list[int] = []
        while not address & 1:
            _, fields = self._constructor(address, 2)
            found.append(fields[0])
            address = fields[1]
        return found

    def _small(self, address: int) -> int:
        if not address & 1:
            raise OleanError(f"a name with a number beyond 63 bits at {address:#x}")
        return address >> 1

    def _offset(self, address: int, size: int) -> int:
        offset = address - self._base
        if offset < _FIRST_OBJECT or offset % 8 or offset + size > len(self._data):
            raise OleanError(f"address {address:#x} with {size} bytes lies outside the file")
        return offset

    def _object(self, address: int) -> tuple[int, int, int, int]:
        """Offset, size in bytes (0 for what is not a constructor), number of fields and tag."""
        self._left -= 1
        if self._left < 0:
            raise OleanError("its objects refer to each other in circles")
        offset = self._offset(address, 8)
        _, size, fields, tag = struct.unpack_from("<iHBB", self._data, offset)
        return offset, size, fields, tag

    def _constructor(self, address: int, at_least: int = 0) -> tuple[int, tuple[int, ...]]:
        """Tag and fields; a constructor without fields is a tagged number."""
        if address & 1:
            tag, fields = address >> 1, ()
        else:
            offset, size, count, tag = self._object(address)
            if tag > _MAX_CONSTRUCTOR or size < 8 + 8 * count:
                raise OleanError(f"no constructor at {address:#x} (tag {tag})")
            self._offset(address, size)
            fields = struct.unpack_from(f"<{count}Q", self._data, offset + 8)
        if len(fields) < at_least:
            raise OleanError(f"{len(fields)} fields at {address:#x} where {at_least} belong")
        return tag, fields

    def _array(self, address: int) -> tuple[int, ...]:
        offset = self._tagged(address, _ARRAY, 24)
        (count,) = struct.unpack_from("<Q", self._data, offset + 8)
        self._offset(address, 24 + 8 * count)
        return struct.unpack_from(f"<{count}Q", self._data, offset + 24)

    def _string(self, address: int) -> str:
        offset = self._tagged(address, _STRING, 32)
        (size,) = struct.unpack_from("<Q", self._data, offset + 8)
        self._offset(address, 32 + size)
        try:
            return self._data[offset + 32 : offset + 32 + size - 1].decode()
        except UnicodeDecodeError as error:
            raise OleanError(f"string at {address:#x}: {error}") from error

    def _tagged(self, address: int, tag: int, size: int) -> int:
        if address & 1:
            raise OleanError(f"a number where an object with tag {tag} belongs")
        offset, _, _, found = self._object(address)
        if found != tag:
            raise OleanError(f"tag {found} at {address:#x} where {tag} belongs")
        self._offset(address, size)
        return offset

    def _constant(self, address: int) -> Constant:
        tag, info = self._constructor(address, 1)
        if tag >= len(_KINDS):
            raise OleanError(f"constant of unknown kind {tag}")
        kind = _KINDS[tag]
        least = {"inductive": 5, "definition": 4}.get(kind, 2 if kind in _WITH_VALUE else 1)
        _, fields = self._constructor(info[0], least)
        _, head = self._constructor(fields[0], 3)
        name, parameters, type_ = head[:3]
        return Constant(
            self.name(name),
            kind,
            tuple(self.name(item) for item in self.items(parameters)),
            (type_, fields[1]) if kind in _WITH_VALUE else (type_,),
            tuple(self.name(item) for item in self.items(fields[4])) if kind == "inductive" else (),
            kind != "definition" or self._scalar(info[0], 1) == _SAFE,
            self._height(fields[2]) if kind == "definition" else -2,
        )

    def _height(self, hint: int) -> int:
        tag, _ = self._constructor(hint)
        if tag == _REGULAR_HINT:
            return self._scalar(hint, 4)
        if tag not in (_OPAQUE_HINT, _ABBREVIATION_HINT):
            raise OleanError(f"reducibility hint {tag} is unknown")
        return -1 if tag == _ABBREVIATION_HINT else -2

    def _scalar(self, address: int, size: int) -> int:
        """The number stored after a constructor's fields."""
        offset, whole, fields, _ = self._object(address)
        place = offset + 8 + 8 * fields
        if 8 + 8 * fields + size > whole:
            raise OleanError(f"no scalar of {size} bytes at {address:#x}")
        return int.from_bytes(self._data[place : place + size], "little")


def dotted(name: Name) -> str:
    """A name as Lean prints it.

    >>> dotted(("Classical", "choice"))
    'Classical.choice'
    """
    return ".".join(map(str, name))
