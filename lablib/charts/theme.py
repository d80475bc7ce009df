"""One look for every chart: the palette, and Vega configuration for live pages and for still pictures."""

from __future__ import annotations

from typing import Any

LAB6 = ("#0F64BC", "#E27622", "#0C9854", "#A24F00", "#B6589D", "#2795FF")
"""Six colours with at least 3:1 contrast on white and on #111827 and a smallest CIE76 difference of 19.7 in normal,
deutan, protan and tritan vision (Machado et al. 2009); found by search over sRGB."""
GREY = "#6B7280"
"""Forecasts, limits and baselines: what was expected, never what was measured."""
BLUE, ORANGE, GREEN, BROWN, PINK, SKY = LAB6
INK = "#1B1F24"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
WIDTH, HEIGHT = 420, 180
"""Pixels of a still picture; a live chart takes its container's width."""


def config(live: bool = True) -> dict[str, Any]:
    """Vega-Lite ``config``. Live charts draw with `currentColor`, so that a page turns dark without drawing again;
    a still picture has no page to inherit from and gets dark ink on a transparent ground.
    """
    ink = "currentColor" if live else INK
    return {
        "background": "transparent",
        "font": FONT,
        "range": {"category": list(LAB6), "ramp": {"scheme": "viridis"}},
        "view": {"stroke": None},
        "axis": _axis(ink),
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "orient": "top",
            "title": None,
            "labelFontSize": 11,
            "symbolType": "square",
            "offset": 4,
        },
        "text": {"fill": ink, "font": FONT, "fontSize": 11},
        "rule": {"color": GREY},
    }


def _axis(ink: str) -> dict[str, Any]:
    colours = {f"{part}Color": ink for part in ("label", "title", "tick", "domain", "grid")}
    return {
        **colours,
        "gridOpacity": 0.12,
        "tickOpacity": 0.35,
        "domainOpacity": 0.35,
        "labelOpacity": 0.78,
        "titleOpacity": 0.78,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": 500,
        "labelLimit": 170,
        "labelOverlap": True,
    }
