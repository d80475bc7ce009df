"""Errors that teach: one class whose message is shown to the user as it stands, without a stack trace."""

from __future__ import annotations

from pydantic import ValidationError


class LabError(Exception):
    """Something the user can mend: the message names the field, the value and the remedy."""


def teach(error: ValidationError, what: str) -> LabError:
    """Turn a pydantic error into one readable message, a line for each field that is wrong."""
    lines = [_line(item["loc"], item["msg"], item.get("input"), item["type"]) for item in error.errors()]
    return LabError("\n".join([f"This {what} is not valid:", *lines]))


def _line(location: tuple[int | str, ...], message: str, value: object, kind: str) -> str:
    where = ".".join(str(part) for part in location) or "recipe"
    if kind == "extra_forbidden":
        return f"  {where}: there is no such field; remove it or check its spelling"
    text = message.removeprefix("Value error, ")
    shown = "" if isinstance(value, dict) or kind == "missing" else f" (got {value!r:.80})"
    return f"  {where}: {text}{shown}"
