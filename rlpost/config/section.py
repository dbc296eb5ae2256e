"""Base class and number types of all configuration sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from rlpost.config.strict import refuse_bool

MOST = 2**53
"""Largest whole number of a setting: JSON and floating point hold no larger ones exactly."""
_MOST_WORKERS = 4096

PositiveInt = Annotated[int, Field(ge=1, le=MOST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MOST)]
Workers = Annotated[int, Field(ge=1, le=_MOST_WORKERS)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

OnResume = Literal["free", "asks", "fixed"]
"""What a new value means to a run that is resumed. ``free``: the run stays the same (output, checks, memory, deadlines,
placement). ``asks``: the run would be another, so ``--allow-changes`` has to say that this is wanted. ``fixed``: the
checkpoint cannot go on with it."""


def on_resume(*, free: str = "", asks: str = "", fixed: str = "") -> Mapping[str, OnResume]:
    """The class of each key of a section, from names separated by spaces.

    >>> on_resume(free="steps name", asks="seed")
    {'steps': 'free', 'name': 'free', 'seed': 'asks'}
    """
    named: tuple[tuple[OnResume, str], ...] = (("free", free), ("asks", asks), ("fixed", fixed))
    return {name: kind for kind, names in named for name in names.split()}


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, field docstrings become descriptions.

    Attributes:
        ON_RESUME: what a new value of each key means to a run that is resumed; every key has to be there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    ON_RESUME: ClassVar[Mapping[str, OnResume]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_is_not_meant(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("text with a null character, which no file and no prompt may hold")
        if info.field_name is not None:
            refuse_bool(value, cls.model_fields[info.field_name].annotation)
        return value
