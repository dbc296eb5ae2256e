"""Compiled Lean modules made by hand, for tests of the reader, the audit and the kernel."""

from __future__ import annotations

import struct
from collections.abc import Sequence

BASE = 0x1000000
KINDS = {"axiom": 0, "definition": 1, "theorem": 2, "opaque": 3}
Declaration = tuple[str, str, Sequence[str]]
"""Name, kind, and the constants that its value mentions (for an axiom: its type)."""


class Builder:
    """Writes the few kinds of runtime objects that a module consists of."""

    def __init__(self) -> None:
        self.data = bytearray(b"olean\x02\x00" + b"4.35.0".ljust(33, b"\0") + b"e" * 40 + struct.pack("<QQ", BASE, 0))

    def put(self, raw: bytes) -> int:
        address = BASE + len(self.data)
        self.data += raw + b"\0" * (-len(raw) % 8)
        return address

    def constructor(self, tag: int, *fields: int) -> int:
        return self.put(struct.pack(f"<iHBB{len(fields)}Q", 0, 8 + 8 * len(fields), len(fields), tag, *fields))

    def array(self, items: Sequence[int]) -> int:
        return self.put(struct.pack(f"<iHBBQQ{len(items)}Q", 0, 0, 0, 246, len(items), len(items), *items))

    def string(self, text: str) -> int:
        raw = text.encode() + b"\0"
        return self.put(struct.pack("<iHBBQQQ", 0, 0, 0, 249, len(raw), len(raw), len(text)) + raw)

    def name(self, text: str) -> int:
        address = 1
        for part in text.split("."):
            number = part.isdigit()
            address = self.constructor(2 if number else 1, address, 2 * int(part) + 1 if number else self.string(part))
        return address

    def mention(self, names: Sequence[str]) -> int:
        """An application chain, or a sort, which mentions nothing."""
        expression = self.constructor(3, 1)
        for name in names:
            expression = self.constructor(5, expression, self.constructor(4, self.name(name), 1))
        return expression

    def definition(self, head: int, value: int) -> int:
        """A definition's value: four fields and the byte that marks it as safe."""
        raw = struct.pack("<iHBB4QQ", 0, 48, 4, 0, head, value, 1, 1, 1)
        return self.put(raw)

    def constant(self, declaration: Declaration) -> int:
        name, kind, uses = declaration
        head = self.constructor(0, self.name(name), 1, self.mention(uses if kind == "axiom" else ()))
        value = (self.mention(uses),) if kind != "axiom" else ()
        body = self.definition(head, *value) if kind == "definition" else self.constructor(0, head, *value)
        return self.constructor(KINDS[kind], body)

    def const(self, name: str) -> int:
        """A constant without universe levels."""
        return self.constructor(4, self.name(name), 1)

    def loose(self, index: int) -> int:
        """A bound variable outside of any binder."""
        return self.constructor(0, 2 * index + 1)

    def itself(self) -> int:
        """A cyclic object: an application of itself to itself."""
        here = BASE + len(self.data)
        return self.constructor(5, here, here)

    def theorem(self, name: str, type_: int, value: int) -> int:
        """A theorem with arbitrary type and value."""
        head = self.constructor(0, self.name(name), 1, type_)
        return self.constructor(KINDS["theorem"], self.constructor(0, head, value))

    def module(self, imports: Sequence[str], declarations: Sequence[Declaration]) -> bytes:
        return self.written(imports, [self.constant(declaration) for declaration in declarations])

    def written(self, imports: Sequence[str], addresses: Sequence[int]) -> bytes:
        """The module that holds the constants at ``addresses``."""
        entries = self.array([self.constructor(0, self.name(name)) for name in imports])
        names, constants = self.array([]), self.array(addresses)
        root = self.constructor(0, entries, names, constants, self.array([]), self.array([]))
        self.data[0x58:0x60] = struct.pack("<Q", root)
        return bytes(self.data)
