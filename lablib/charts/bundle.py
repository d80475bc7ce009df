"""Vega, Vega-Lite and vega-embed as one script around ours: built once, cached, and never fetched from a network."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from lablib.specs import write_atomic
from lablib.specs.paths import home

VEGA_LITE = "6.4"


def asset(package: str, name: str) -> str:
    """Text of a file shipped inside a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def figures_js() -> str:
    """The part that draws figures, shared by widgets and reports."""
    return asset("lablib.charts", "assets/figures.js")


@cache
def bundle(script: str) -> str:
    """`script` (an ES module that uses `vegaEmbed`) with everything that it needs: about 0.9 MB, some seconds the first
    time, then read from ``<lab home>/vega``. The name covers the script and the bundler's version.
    """
    key = f"{script}\0{VEGA_LITE}\0{version('vl-convert-python')}"
    file = home() / "vega" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.js"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    import vl_convert

    built: str = vl_convert.javascript_bundle(script, vl_version=VEGA_LITE)
    write_atomic(file, built)
    return built


def svg(spec: dict[str, object]) -> str:
    """A picture of a `Figure.still` specification, without a browser."""
    import vl_convert

    picture: str = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    return picture
