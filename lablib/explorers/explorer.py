"""`Explorer`: a what-if declared once, as inputs with ranges and units and a pure function to a `View`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import Field

from lablib.explorers.view import View
from lablib.specs import AnyRecipe, LabError, Spec, catalog


def knob(
    default: Any,
    label: str,
    low: float | None = None,
    high: float | None = None,
    *,
    step: float = 1,
    unit: str = "",
    log: bool = False,
    powers_of_two: bool = False,
    choices: Sequence[Any] = (),
) -> Any:
    """A pydantic field that a screen can move: a range (linear, logarithmic or powers of two) or a list of choices.

    A field typed `Literal` takes its choices from there. `unit` stands behind the number.
    """
    shown: Any = {
        "label": label,
        "unit": unit,
        "step": step,
        "log": log or powers_of_two,
        "base": 2 if powers_of_two else 10,
        "choices": list(choices),
    }
    return Field(default, ge=low, le=high, json_schema_extra={"knob": shown})


def catalogued(name: str, info: Any) -> str:
    """Validator of the fields ``model`` and ``accelerator``: a name that the catalogue has, else an error with near ones."""
    table: Any = catalog.models if info.field_name == "model" else catalog.accelerators
    try:
        table[name]
    except LabError as error:
        raise ValueError(str(error)) from None
    return name


class Explorer(Spec):
    """Inputs as fields made by `knob`; a state that does not add up is refused by pydantic with the remedy."""

    @abstractmethod
    def view(self) -> View:
        """What these inputs lead to. Pure: no file, no clock, no random number. Raises `LabError`."""

    @property
    @abstractmethod
    def recipe(self) -> AnyRecipe:
        """The recipe that the screen shows, ready to be submitted. Raises `LabError`."""

    @classmethod
    def knobs(cls) -> list[dict[str, Any]]:
        """The inputs in order, as a renderer reads them: name, label, unit, min, max, step, log, base, whole, choices."""
        return [_describe(name, field) for name, field in cls.model_fields.items() if field.json_schema_extra]


def _describe(name: str, field: Any) -> dict[str, Any]:
    shown = dict(field.json_schema_extra["knob"])
    limits = {type(item): item for item in field.metadata}
    if get_origin(field.annotation) is Literal:
        shown["choices"] = list(get_args(field.annotation))
    if Ge in limits and Le in limits:
        shown |= {"min": limits[Ge].ge, "max": limits[Le].le}
    wide = shown.get("max", 0) >= 1e5
    return {
        **shown,
        "name": name,
        "whole": field.annotation is not float,
        "si": wide,
        "choices": shown["choices"] or None,
    }
