"""Lean's kernel, run on declarations that arrive as plain data. Part of the fork server's script.

The module that elaboration compiled is never loaded: every expression is rebuilt by Lean's own constructors from an
export (see `rlpost_verifiers.lean.embedded.export`), so that nothing a compiled file says about itself is trusted, and
each declaration is checked in an environment that holds the prelude and nothing else. Objects built here are marked as
never to be freed (reference count zero): their process is replaced before there are too many.

The functions called are those Lean exports for its own C++ parts; they belong to one build, which the installation
pins by hash and the server tests on a right and a wrong declaration.
"""

import ctypes
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from rlpost_verifiers.lean.embedded.objects import Functions, boxed, elements, field, keep, tag
else:
    from objects import Functions, boxed, elements, field, keep, tag

_BYTE, _SIZE = ctypes.c_uint8, ctypes.c_size_t
_NOTHING = 1
_DEFINITION, _THEOREM = 1, 2
_SAFE = 1
_DEFAULT_DEPTH = 1024
_OPAQUE_HINT, _ABBREVIATION_HINT = 1, 3

PROBLEMS = (
    *("it uses an unknown constant", "its name is taken", "its value does not have its type"),
    *("it contains a metavariable", "it contains a free variable", "it applies what is no function"),
    *("it uses as a type what is none", "a local definition does not have its type", "a term does not have its type"),
    *("an argument does not have the type the function asks for", "it projects from what is no structure"),
    *("what it states is no proposition", "the kernel refuses it", "the kernel ran out of steps"),
    *("the kernel ran out of memory", "it is nested too deeply", "the kernel was interrupted"),
)
"""The kernel's possible objections, in the order of ``Lean.Kernel.Exception``'s constructors."""
EXHAUSTED = PROBLEMS[13:16]
"""Objections that concern the size of a proof and not its truth."""


class Kernel:
    """Lean's kernel on the declarations of one compiled module.

    Args:
        library: the loaded libleanshared, initialised.
        compiled: path of a trusted compiled module; its constants are added unchecked.

    Raises:
        OSError: if Lean cannot read the module.
    """

    def __init__(self, library: ctypes.CDLL, compiled: str) -> None:
        functions = Functions(library)
        self._call, self._string = functions.call, functions.string
        self._held: list[ctypes.Array[ctypes.c_uint64]] = []
        self._call("lean_io_mark_end_initialization")
        read = self._call("l_Lean_readModuleData", self._string(compiled))
        if tag(read) != 0:
            raise OSError(f"Lean cannot read {compiled}")
        environment = self._call("lean_elab_environment_to_kernel_env", field(self._empty_environment(), 0))
        constants = field(field(field(read, 0), 0), 2)
        for constant in elements(constants):
            environment = self._call("lean_environment_add", environment, constant)
        self._environment = self._call("lean_environment_mark_quot_init", environment)
        self._call("lean_mark_persistent", self._environment)

    def check(self, export: dict[str, Any]) -> str:
        """Why the kernel refuses one of the declarations, empty if it accepts them all.

        Each call starts again from the module's declarations. The objects it builds are never freed.
        """
        sys.set_int_max_str_digits(0)
        self._held.clear()
        builder = _Builder(self, export)
        environment = self._environment
        for declaration in export["declarations"]:
            kind, name = declaration[:2]
            result = self._call(
                *("lean_add_decl", environment, _SIZE(0), _SIZE(_DEFAULT_DEPTH)),
                *(builder.declaration(*declaration), _NOTHING),
            )
            outcome = field(result, 0)
            if tag(result) == 0:
                number = outcome >> 1 if outcome & 1 else tag(outcome)
                return f"{kind} {_dotted(export['names'], name)}: {PROBLEMS[number]}"
            environment = keep(outcome)
        return ""

    def make(self, symbol: str, *arguments: Any) -> int:
        """The object that ``symbol`` makes, marked as never to be freed."""
        return keep(self._call(symbol, *arguments))

    def text(self, text: str) -> int:
        """A string object, marked as never to be freed."""
        return keep(self._string(text))

    def constructor(self, tag: int, fields: tuple[int, ...], scalar: bytes = b"") -> int:
        """A constructor object in memory allocated here, which Lean neither counts nor frees."""
        size = 8 + 8 * len(fields) + len(scalar)
        words = (ctypes.c_uint64 * ((size + 7) // 8))(size << 32 | len(fields) << 48 | tag << 56, *fields)
        ctypes.memmove(ctypes.addressof(words) + 8 + 8 * len(fields), scalar, len(scalar))
        self._held.append(words)
        return ctypes.addressof(words)

    def _empty_environment(self) -> int:
        return self._call("l_Lean_mkEmptyEnvironment", ctypes.c_uint32(0))


class _Builder:
    """Lean's objects for the entries of an export, each table in its own order."""

    def __init__(self, kernel: Kernel, export: dict[str, Any]) -> None:
        self._kernel = kernel
        self._names = [_NOTHING]
        for parent, part in export["names"]:
            self._names.append(self._name(self._names[parent], part))
        self._levels: list[int] = []
        for tag, *parts in export["levels"]:
            self._levels.append(self._level(tag, parts))
        self._terms: list[int] = []
        for tag, *parts in export["terms"]:
            self._terms.append(self._term(tag, parts))

    def declaration(self, kind: str, name: int, parameters: list[int], type_: int, value: int, height: int) -> int:
        """A ``Lean.Declaration`` of a theorem or definition; the audit lets no other kinds pass."""
        make, title = self._kernel.make, self._names[name]
        head = (title, self._list([self._names[each] for each in parameters]), self._terms[type_], self._terms[value])
        group = self._list([title])
        if kind == "theorem":
            return self._kernel.constructor(_THEOREM, (make("lean_mk_theorem_val", *head, group),))
        if kind == "definition":
            body = make("lean_mk_definition_val", *head, self._hint(height), _BYTE(_SAFE), group)
            return self._kernel.constructor(_DEFINITION, (body,))
        raise ValueError(f"a declaration of kind {kind!r} cannot be replayed")

    def _name(self, parent: int, part: str | int) -> int:
        if isinstance(part, str):
            return self._kernel.make("l_Lean_Name_str___override", parent, self._kernel.text(part))
        return self._kernel.make("l_Lean_Name_num___override", parent, self._natural(part))

    def _level(self, tag: int, parts: list[int]) -> int:
        if tag == 0:
            return self._kernel.make("lean_level_mk_zero", _NOTHING)
        if tag == 4:
            return self._kernel.make("lean_level_mk_param", self._names[parts[0]])
        symbol = ("lean_level_mk_succ", "lean_level_mk_max", "lean_level_mk_imax")[tag - 1]
        return self._kernel.make(symbol, *(self._levels[part] for part in parts))

    def _term(self, tag: int, parts: list[Any]) -> int:
        make, term, default = self._kernel.make, self._terms, _BYTE(0)
        match tag:
            case 0:
                return make("lean_expr_mk_bvar", self._natural(int(parts[0], 16)))
            case 3:
                return make("lean_expr_mk_sort", self._levels[parts[0]])
            case 4:
                return make(
                    "lean_expr_mk_const", self._names[parts[0]], self._list([self._levels[i] for i in parts[1:]])
                )
            case 5:
                return make("lean_expr_mk_app", term[parts[0]], term[parts[1]])
            case 6:
                return make("lean_expr_mk_lambda", _NOTHING, term[parts[0]], term[parts[1]], default)
            case 7:
                return make("lean_expr_mk_forall", _NOTHING, term[parts[0]], term[parts[1]], default)
            case 8:
                return make("lean_expr_mk_let", _NOTHING, *(term[part] for part in parts), default)
            case 9:
                return make("lean_expr_mk_lit", self._literal(*parts))
            case 11:
                return make(
                    "lean_expr_mk_proj", self._names[parts[0]], self._natural(int(parts[1], 16)), term[parts[2]]
                )
            case _:
                raise ValueError(f"an expression with tag {tag} cannot be replayed")

    def _literal(self, kind: str, value: str) -> int:
        if kind == "text":
            return self._kernel.constructor(1, (self._kernel.text(value),))
        return self._kernel.constructor(0, (self._natural(int(value, 16)),))

    def _natural(self, number: int) -> int:
        if number < 1 << 63:
            return boxed(number)
        return self._kernel.make("lean_cstr_to_nat", ctypes.c_char_p(str(number).encode()))

    def _hint(self, height: int) -> int:
        if height < 0:
            return _ABBREVIATION_HINT if height == -1 else _OPAQUE_HINT
        return self._kernel.constructor(2, (), height.to_bytes(4, "little"))

    def _list(self, items: list[int]) -> int:
        whole = _NOTHING
        for item in reversed(items):
            whole = self._kernel.constructor(1, (item, whole))
        return whole


def _dotted(names: list[list[Any]], number: int) -> str:
    parts: list[str] = []
    while number:
        number, part = names[number - 1]
        parts.insert(0, str(part))
    return ".".join(parts)
