"""Settings that fit a named template: how its answers are read is a property of the prompt, not of taste."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlpost.config.schema import RunConfig
from rlpost.errors import ConfigError
from rlpost.plugins import registry

_FAMILIES = ("lean.",)
"""Verifiers that templates are registered for, by the beginning of their name; with another the needs say nothing."""


def check_template(config: RunConfig) -> None:
    """Refuse settings that do not fit the template that ``data.template`` names.

    What fits is a mapping from dotted setting to values, registered as ``template_needs`` under the template's name
    (built in, or an entry point of the group ``rlpost.template_needs``); a template without one fits everything.

    Raises:
        ConfigError: naming the setting, its value and what to use.
    """
    template, verifier = config.data.template, config.scoring.verifier
    if template is None or verifier is None or not verifier.startswith(_FAMILIES):
        return
    if template not in registry.names("template_needs"):
        return
    needs: Mapping[str, tuple[Any, ...]] = registry.resolve("template_needs", template)
    for setting, fitting in needs.items():
        value = _value(config, setting)
        if value not in fitting:
            wanted = " or ".join(repr(each) for each in fitting if each is not None)
            raise ConfigError(
                f"{setting}: {'missing' if value is None else repr(value)}, but answers to data.template {template} "
                f"are checked rightly only with {wanted}; set it, or write the template's text into data.template or "
                "data.chat_template if you know why"
            )


def _value(config: RunConfig, setting: str) -> Any:
    found: Any = config
    for key in setting.split("."):
        found = found.get(key) if isinstance(found, Mapping) else getattr(found, key)
    return found
