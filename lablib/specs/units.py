"""Human units: ``"15T"`` tokens, ``"2 days"``, ``"$50k"``, ``"8 GiB"`` parse to plain numbers, and print back.

Counts use decimal suffixes (k, M, B or G, T), as the field writes them; bytes know both GB (10⁹) and GiB (2³⁰).
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_DECIMAL = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}
_TIME = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
}
_BYTES = {
    "": 1.0,
    "b": 1.0,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
    "tib": 2.0**40,
}
_NUMBER = re.compile(r"\s*([-+]?[\d_,]*\.?\d+(?:e[-+]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def _parse(value: object, units: dict[str, float], example: str) -> float:
    """Read ``number[unit]``; raises ValueError that shows a right example."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number or a text such as {example}")
    if isinstance(value, int | float):
        return value
    match = _NUMBER.fullmatch(value)
    unit = match[2].lower() if match else None
    if match is None or unit is None or (unit not in units and unit.rstrip("s") not in units):
        raise ValueError(f"cannot be read; write it as a number or as {example}")
    number = float(match[1].replace(",", "").replace("_", ""))
    return number * units[unit if unit in units else unit.rstrip("s")]


def parse_count(value: object) -> int:
    """``"15T"`` → 15_000_000_000_000. Raises ValueError where the text has another form or a fraction remains."""
    number = _parse(value, _DECIMAL, '"4M", "12B" or "15T"')
    if not math.isfinite(number) or abs(number - round(number)) > 1e-6 * max(1.0, abs(number)):
        raise ValueError("must be a whole number")
    return round(number)


def parse_seconds(value: object) -> float:
    """``"2 days"`` → 172800.0 s; a bare number is seconds."""
    return float(_parse(value, {"": 1.0, **_TIME}, '"90 s", "10 min" or "2 days"'))


def parse_dollars(value: object) -> float:
    """``"$50k"`` → 50000.0 US dollars."""
    text = value.strip().replace("$", "", 1) if isinstance(value, str) else value
    return float(_parse(text, _DECIMAL, '"$50k" or "$1.2M"'))


def parse_bytes(value: object) -> int:
    """``"8 GiB"`` → 8589934592 bytes; ``"8 GB"`` → 8000000000."""
    return round(_parse(value, _BYTES, '"8 GiB" or "500 MB"'))


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0)]
Dollars = Annotated[float, BeforeValidator(parse_dollars), Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


def show_count(number: float, digits: int = 3) -> str:
    """12_300_000_000 → ``"12.3B"``: tokens and parameters as the field writes them."""
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.{digits}g}{suffix}"
    return f"{number:.{digits}g}"


def show_seconds(seconds: float) -> str:
    """93 → ``"1 min 33 s"``; days for long times."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    if seconds < 2 * 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return f"{seconds / 86400:.1f} days"


def show_dollars(dollars: float) -> str:
    """73728 → ``"$73,728"``; 1.2e6 → ``"$1.2M"``; cents below ten dollars."""
    if dollars < 0.1:
        return f"${dollars:.4f}"
    if dollars < 10:
        return f"${dollars:.2f}"
    return f"${dollars:,.0f}" if dollars < 1e5 else f"${show_count(dollars)}"


def show_flops(flops: float) -> str:
    """4.2e22 → ``"4.2×10²² FLOP"``: a count of operations, never a rate."""
    if flops <= 0:
        return "0 FLOP"
    exponent = math.floor(math.log10(flops))
    return f"{flops / 10**exponent:.1f}×10{str(exponent).translate(str.maketrans('0123456789-', '⁰¹²³⁴⁵⁶⁷⁸⁹⁻'))} FLOP"
