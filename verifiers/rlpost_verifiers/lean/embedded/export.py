"""Declarations in a form that any kernel can check: plain numbers and strings, nothing cached, nothing shared.

With every expression, a compiled module also stores what Lean has computed about it (hashes, loose variables), and a
kernel that loads the module trusts these figures. The replay must not: it gets only the export, read from the file by
`olean` with every bound checked, and builds its own objects from it.

Equal terms get equal numbers, in the order in which they are first met, and what the kernel ignores (names of bound
variables, their brackets, metadata) is left out. Two modules therefore declare the same thing exactly if their
exports are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlpost_verifiers.lean.embedded.olean import (
    CONSTANT,
    LITERAL,
    METADATA,
    PROJECTION,
    SORT,
    SUBEXPRESSIONS,
    VARIABLE,
    Constant,
    Name,
    Olean,
)

Export = dict[str, list[Any]]
"""``names``, ``levels`` and ``terms`` as lists whose entries refer to earlier ones by position, and ``declarations``.

Names count from 1, 0 being the empty name; numbers are hexadecimal. A declaration is its kind, name, universe
parameters, type, value (None in a statement) and height.
"""

_PARAMETER = 4


def export_module(module: Olean) -> Export:
    """Every constant of ``module`` in dependency order, which does not depend on their order in the file.

    Those for Lean's code generator alone are left out; where another constant mentions one, it is in, and the kernel
    refuses it.

    Raises:
        OleanError: where the module cannot be read.
    """
    exporter = _Exporter(module)
    for name in sorted(module.constants, key=repr):
        if not is_compiled_only(name, module.constants[name]):
            exporter.declare(name)
    return exporter.export


def is_compiled_only(name: Name, constant: Constant) -> bool:
    """Whether a constant is the unsafe form of mutually recursive functions that Lean adds for its code generator."""
    return constant.kind == "definition" and not constant.safe and name[-1] == "_unsafe_rec"


def export_statement(module: Olean, name: Name) -> Export:
    """What ``name`` states: its universe parameters and type, and all constants of the module that the type depends on.

    Its own name is left out and its universe parameters are numbered, because these names mean nothing.

    Raises:
        KeyError: if the module holds no such constant.
        OleanError: where the module cannot be read.
    """
    exporter = _Exporter(module)
    exporter.state(name)
    return exporter.export


class _Exporter:
    def __init__(self, module: Olean) -> None:
        self.export: Export = {"names": [], "levels": [], "terms": [], "declarations": []}
        self._module = module
        self._declared: set[Name] = set()
        self._numbers: dict[str, dict[Any, int]] = {"levels": {}, "terms": {}}
        self._names: dict[Name, int] = {(): 0}
        self._levels: dict[int, int] = {}
        self._terms: dict[int, int] = {}
        self._universes: dict[Name, Name] = {}

    def declare(self, name: Name) -> None:
        """Append ``name`` after all constants of the module that it mentions; without recursion, so at any depth."""
        stack = [(name, False)]
        while stack:
            current, ready = stack.pop()
            if ready:
                self._append(current, with_value=True)
            elif current not in self._declared:
                self._declared.add(current)
                stack.append((current, True))
                stack += [(used, False) for used in sorted(self._own(current), key=repr)]

    def state(self, name: Name) -> None:
        constant = self._module.constants[name]
        # No name in a module looks like these: its parts are the empty text and a number.
        self._universes = {parameter: ("", index) for index, parameter in enumerate(constant.parameters)}
        own = self._module.mentioned(constant.expressions[:1]) & self._module.constants.keys()
        for used in sorted(own, key=repr):
            self.declare(used)
        self._append(name, with_value=False)

    def _own(self, name: Name) -> frozenset[Name]:
        return (self._module.uses(name) & self._module.constants.keys()) - {name}

    def _append(self, name: Name, *, with_value: bool) -> None:
        constant = self._module.constants[name]
        type_, *value = (self._term(each) for each in constant.expressions[: 2 if with_value else 1])
        parameters = [self._parameter(parameter) for parameter in constant.parameters]
        kind, height = (constant.kind, constant.height) if with_value else ("statement", 0)
        self.export["declarations"].append(
            [kind, self._name(name) if with_value else 0, parameters, type_, value[0] if value else None, height]
        )

    def _name(self, name: Name) -> int:
        for length in range(1, len(name) + 1):
            part = name[:length]
            if part not in self._names:
                self.export["names"].append([self._names[part[:-1]], part[-1]])
                self._names[part] = len(self.export["names"])
        return self._names[name]

    def _parameter(self, name: Name) -> int:
        return self._name(self._universes.get(name, name))

    def _level(self, root: int) -> int:
        def build(tag: int, fields: tuple[int, ...], parts: list[int]) -> int:
            parameter = [self._parameter(self._module.name(fields[0]))] if tag == _PARAMETER else parts
            return self._number("levels", (tag, *parameter))

        def read(address: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
            tag, fields = self._module.level(address)
            return tag, fields, () if tag == _PARAMETER else fields

        return _fold(root, self._levels, read, build)

    def _term(self, root: int) -> int:
        def build(tag: int, fields: tuple[int, ...], parts: list[int]) -> int:
            return parts[0] if tag == METADATA else self._number("terms", self._key(tag, fields, parts))

        def read(address: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
            tag, fields = self._module.expression(address)
            return tag, fields, tuple(fields[index] for index in SUBEXPRESSIONS[tag])

        return _fold(root, self._terms, read, build)

    def _key(self, tag: int, fields: tuple[int, ...], parts: list[int]) -> tuple[Any, ...]:
        module = self._module
        if tag == VARIABLE:
            return tag, f"{module.number(fields[0]):x}"
        if tag == SORT:
            return tag, self._level(fields[0])
        if tag == CONSTANT:
            return tag, self._name(module.name(fields[0])), *(self._level(each) for each in module.items(fields[1]))
        if tag == LITERAL:
            value = module.literal(fields[0])
            return (tag, "text", value) if isinstance(value, str) else (tag, "number", f"{value:x}")
        if tag == PROJECTION:
            return tag, self._name(module.name(fields[0])), f"{module.number(fields[1]):x}", *parts
        return tag, *parts

    def _number(self, table: str, key: tuple[Any, ...]) -> int:
        numbers = self._numbers[table]
        if key not in numbers:
            numbers[key] = len(numbers)
            self.export[table].append(list(key))
        return numbers[key]


def _fold(
    root: int,
    done: dict[int, int],
    read: Callable[[int], tuple[int, tuple[int, ...], tuple[int, ...]]],
    build: Callable[[int, tuple[int, ...], list[int]], int],
) -> int:
    """The number of ``root``, after every object below it has been built; without recursion."""
    stack = [root]
    while stack:
        address = stack[-1]
        if address in done:
            stack.pop()
            continue
        tag, fields, inner = read(address)
        if missing := [each for each in inner if each not in done]:
            stack += reversed(missing)
            continue
        stack.pop()
        done[address] = build(tag, fields, [done[each] for each in inner])
    return done[root]
