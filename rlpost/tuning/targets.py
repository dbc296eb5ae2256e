"""Names and patterns of tuning settings against a model: each of them must name something.

A list entry of ``targets`` (PEFT's ``target_modules``) is a module's full name or its ending at a dot: ``q_proj``,
``self_attn.q_proj``, ``model.layers.0.self_attn.q_proj``. Only a plain string in ``tuning.peft`` is a regular
expression, which must match a full name. PEFT itself ignores entries without a match as long as one has any; then less
is trained than was asked for.

Nothing here reads weights, so that a model on torch's meta device will do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from rlpost.errors import ConfigError
from rlpost.tuning.names import hint, is_linear, not_there, verb
from rlpost.tuning.tying import tied_to_embeddings

Names = Mapping[str, nn.Module]
"""A model's modules by name, shared ones once for each name."""


def check_targets(
    config: Any, model: nn.Module, keys: Mapping[str, str], linear_only: bool = False, given: Any = None
) -> None:
    """Check every name and pattern of a PEFT configuration against a model.

    Args:
        config: a PEFT configuration, with this model's names.
        given: the configuration with the user's own patterns, if that is another one.
        model: the model before anything is injected; its parameters may be on the meta device.
        keys: the user's names of the configuration's fields; others are ``tuning.peft.FIELD``.
        linear_only: refuse targets other than linear layers.

    Raises:
        ConfigError: for the first field with entries that name nothing, or whose targets cannot be trained as they are.
    """
    check = _Check(config, model, keys)
    check.not_there("exclude_modules", check.ending)
    check.not_there("modules_to_save", str.endswith)
    check.parameters(dict(model.named_parameters(remove_duplicate=False)), given or config)
    check.tokens(model)
    check.not_there("target_modules", check.ending)
    check.not_there("feedforward_modules", check.ending)
    adapted = check.adapted()
    check.layers(adapted)
    check.kinds(adapted, linear_only, given)
    names = [*adapted, *check.adapted_parameters(model)]
    for field in ("rank_pattern", "alpha_pattern", "n_frequency_pattern", "block_size_pattern"):
        check.pattern(field, getattr(given or config, field, None), names)
    check.tied(model, adapted)


class _Check:
    """One configuration against one model."""

    def __init__(self, config: Any, model: Any, keys: Mapping[str, str]):
        self.config, self.keys = config, keys
        self.modules: Names = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        self.head = getattr(model, "get_output_embeddings", lambda: None)()
        self.linear_names = [name for name, module in self.modules.items() if is_linear(module)] or list(self.modules)

    def key(self, field: str) -> str:
        return self.keys.get(field, f"tuning.peft.{field}")

    def given(self, field: str) -> Any:
        found = getattr(self.config, field, None)
        return found if found or found == 0 else None

    @staticmethod
    def ending(name: str, entry: str) -> bool:
        return name == entry or name.endswith(f".{entry}")

    def not_there(self, field: str, matches: Callable[[str, str], bool]) -> None:
        """Refuse entries of a field that name no module."""
        given = self.given(field)
        if given is None or given == "all-linear":
            return
        if not isinstance(given, str):
            not_there(self.key(field), sorted(given), list(self.modules), matches, likely=self.linear_names)
            return
        try:
            found = any(re.fullmatch(given, name) for name in self.modules)
        except re.error as error:
            raise ConfigError(f"{self.key(field)}: {given!r} is no regular expression ({error}); correct it") from None
        if not found:
            raise ConfigError(
                f"{self.key(field)}: no layer's full name is matched by the regular expression {given!r}; give a list "
                f"of names or their endings, or a pattern of names like {self.linear_names[0]!r}"
            )

    def adapted(self) -> dict[str, nn.Module]:
        """The modules that are adapted; each entry of the targets must leave one.

        Raises:
            ConfigError: for an entry whose modules are all excluded, or in no layer that is transformed.
        """
        given = self.given("target_modules")
        if given is None:
            return {}
        if given == "all-linear":
            return {
                n: m for n, m in self.modules.items() if is_linear(m) and m is not self.head and not self._excluded(n)
            }
        if isinstance(given, str):
            return {n: m for n, m in self.modules.items() if re.fullmatch(given, n) and not self._excluded(n)}
        found: dict[str, nn.Module] = {}
        for entry in sorted(given):
            mine = [n for n in self.modules if self.ending(n, entry)]
            left = [n for n in mine if not self._excluded(n) and self._transformed(n)]
            if mine and not left:
                raise ConfigError(
                    f"{self.key('target_modules')}: nothing is left of {entry!r} after exclude_modules, "
                    "modules_to_save and layers_to_transform; remove it from one of them"
                )
            found |= {name: self.modules[name] for name in left}
        return {name: module for name, module in self.modules.items() if name in found}

    def _excluded(self, name: str) -> bool:
        out, saved = self.given("exclude_modules"), self.given("modules_to_save") or ()
        if isinstance(out, str) and re.fullmatch(out, name):
            return True
        if out and not isinstance(out, str) and any(self.ending(name, entry) for entry in out):
            return True
        return any(f".{entry}." in f".{name}." for entry in saved)

    def _index(self, name: str) -> int | None:
        """The number of the layer that a module is in, as PEFT reads it; None if it is in none."""
        kinds = self.given("layers_pattern")
        if kinds is None:
            found = re.match(r".*?\.[^.]*\.(\d+)\.", name)
            return int(found[1]) if found else None
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            if found := re.match(rf"(?:^|.*?\.){kind}\.(\d+)\.", name):
                return int(found[1])
        return None

    def _wanted(self) -> list[int] | None:
        given = self.given("layers_to_transform")
        return None if given is None else [given] if isinstance(given, int) else list(given)

    def _transformed(self, name: str) -> bool:
        wanted = self._wanted()
        return wanted is None or self._index(name) in wanted

    def layers(self, adapted: Names) -> None:
        """Refuse layer numbers without an adapted layer."""
        held = {self._index(name) for name in adapted}
        absent = [number for number in self._wanted() or () if number not in held]
        if absent:
            targets = self.given("target_modules") or ()
            there = sorted(
                {self._index(n) for n in self.modules if any(self.ending(n, e) for e in targets)} - {None}  # pyright: ignore[reportArgumentType]
            )
            raise ConfigError(
                f"{self.key('layers_to_transform')}: {', '.join(map(str, absent))} {verb(absent)} no layer with "
                f"targets; those have the numbers {there[0]} to {there[-1]}"
                if there
                else f"{self.key('layers_to_transform')}: {absent[0]} names no layer of this model; leave it out"
            )

    def parameters(self, names: Mapping[str, nn.Parameter], asked: Any) -> None:
        """Refuse the user's ``target_parameters`` that name no parameter."""
        given = getattr(asked, "target_parameters", None)
        if given is not None and not isinstance(given, str):
            not_there(self.key("target_parameters"), sorted(given), list(names), self.ending, "parameter")

    def tokens(self, model: Any) -> None:
        """Refuse ``trainable_token_indices`` of layers or rows that there are not."""
        given = self.given("trainable_token_indices")
        if given is None:
            return
        key = self.key("trainable_token_indices")
        by_name = given if isinstance(given, Mapping) else {None: given}
        not_there(key, [name for name in by_name if name is not None], list(self.modules), str.endswith)
        for name, indices in by_name.items():
            layer = next((m for n, m in self.modules.items() if name and n.endswith(name)), None)
            layer = layer if name is not None else model.get_input_embeddings()
            rows = getattr(getattr(layer, "weight", None), "shape", (0,))[0]
            outside = [index for index in indices if not 0 <= index < rows]
            if outside:
                raise ConfigError(f"{key}: {outside[0]} is no row of {name or 'the embeddings'}, which has {rows}")

    def kinds(self, adapted: Names, linear_only: bool, asked: Any) -> None:
        """Refuse targets without a weight of their own, or other than linear layers, by the entry that names them."""
        given, experts = self.given("target_modules"), self.given("target_parameters")
        if linear_only and experts:
            lines = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in self.linear_names[:4]))
            raise ConfigError(
                f"{self.key('target_modules')}: {getattr(asked, 'target_modules', given)!r} includes this model's "
                f"experts ({', '.join(sorted(experts))}), which no plain adapter can hold; list linear layers, e.g. "
                f"{lines}, or use tuning.method peft:lora"
            )
        for entry in sorted(given) if given and not isinstance(given, str) else ():
            mine = {n: m for n, m in adapted.items() if self.ending(n, entry)}
            odd = next((m for m in mine.values() if not (is_linear(m) if linear_only else m._parameters)), None)
            if odd is None or (not linear_only and any(m._parameters for m in mine.values())):
                continue
            inner = dict.fromkeys(n.rpartition(".")[2] for n, m in odd.named_modules() if n and is_linear(m))
            remedy = f"name those in it: {', '.join(inner)}" if inner else "leave it out"
            if isinstance(odd, nn.Embedding):
                remedy = "leave it out; embeddings are trained by tuning.method full, subnetwork or peft:lora"
            kind = type(odd).__name__
            raise ConfigError(
                f"{self.key('target_modules')}: {entry!r} names {kind}, which is no linear layer; {remedy}"
            )

    def adapted_parameters(self, model: nn.Module) -> list[str]:
        """Names of the parameters that are adapted by themselves."""
        entries = self.given("target_parameters") or ()
        return [n for n, _ in model.named_parameters() if any(self.ending(n, entry) for entry in entries)]

    def pattern(self, field: str, given: Any, adapted: Sequence[str]) -> None:
        """Refuse keys of a pattern that match no adapted layer, or only layers that earlier keys match."""
        if not isinstance(given, Mapping):
            return
        taken: set[str] = set()
        for entry in given:
            try:
                mine = {name for name in adapted if re.match(rf"(.*\.)?({entry})$", name)}
            except re.error as error:
                raise ConfigError(f"{self.key(field)}: {entry!r} is no regular expression ({error})") from None
            if not mine:
                raise ConfigError(f"{self.key(field)}: {entry!r} matches no adapted layer{hint(entry, adapted)}")
            if mine <= taken:
                raise ConfigError(
                    f"{self.key(field)}: {entry!r} has no effect, as keys before it match the same layers; write it "
                    "before them"
                )
            taken |= mine

    def tied(self, model: Any, adapted: Names) -> None:
        """Refuse to adapt one of head and embeddings where they are one tensor.

        PEFT can tie adapters too (``ensure_weight_tying``), as two parameters that share memory: an optimizer would
        update each by its own part of the gradient, and keep two states. Whole copies are one parameter.
        """
        head, embeddings = tied_to_embeddings(model)
        if head is None:
            return
        together = getattr(self.config, "ensure_weight_tying", False)
        saved = self.given("modules_to_save") or ()
        rows = next(name for name, module in self.modules.items() if module is embeddings).rpartition(".")[2]
        for name, module in self.modules.items():
            whole = any(name.endswith(entry) for entry in saved)
            if module not in (head, embeddings) or not (whole or name in adapted) or (whole and together):
                continue
            key = self.key("modules_to_save" if whole else "target_modules")
            what, both = "tied embeddings cannot be adapted apart from the head", ""
            if module is head:
                what = "a tied head cannot be adapted apart from the embeddings"
            if hasattr(self.config, "ensure_weight_tying") and key.startswith("tuning.peft"):
                both = f", or train both as one tensor (modules_to_save: [{rows}], ensure_weight_tying: true)"
            raise ConfigError(
                f"{key}: {name} shares its weight; {what}: remove {name.rpartition('.')[2]}{both}, or untie the model"
            )
