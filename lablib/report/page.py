"""The page: a record and its sections become one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from string import Template

from lablib.charts.bundle import asset, bundle, figures_js, svg
from lablib.report.glance import glance
from lablib.report.markup import Markup, escape, join, json_block, tag
from lablib.report.record import Record
from lablib.report.seal import BLANK, seal
from lablib.report.section import Drawing, Section
from lablib.report.sections import SECTIONS


def render(record: Record) -> str:
    """The whole sealed page; a pure function of the record, up to the versions of Vega."""
    sections = [make(record) for make in SECTIONS]
    script = _script()
    page = Template(asset("lablib.report", "assets/report.html")).substitute(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        schema=str(record["schema"]),
        hash=BLANK,
        title=escape(record["title"]),
        style=asset("lablib.charts", "assets/base.css") + asset("lablib.report", "assets/report.css"),
        question=tag("p", record["question"], class_="question") if record["question"] else "",
        glance=glance(record),
        contents=join(tag("a", section.title, href=f"#{section.identity}") for section in sections),
        sections=join(_section(section) for section in sections),
        record=json_block("lab-record", record),
        drawings=json_block("lab-drawings", _drawings(record, sections)),
        script=script,
    )
    return seal(page)


def _script() -> str:
    """The page's module; a closing tag inside a string of the bundle would end the element."""
    return bundle(figures_js() + asset("lablib.report", "assets/report.js")).replace("</script", "<\\/script")


def _section(section: Section) -> Markup:
    body = section.body
    for drawing in section.drawings:
        body = Markup(body.replace(drawing.place, drawing.place + _picture(drawing)))
    return tag(
        "section",
        tag("h2", section.title, id=f"{section.identity}-title"),
        body,
        id=section.identity,
        aria_labelledby=f"{section.identity}-title",
    )


def _picture(drawing: Drawing) -> Markup:
    """For a reader without scripts: the same figure as a still picture."""
    drawn = base64.b64encode(svg(drawing.figure.still(drawing.frames)).encode()).decode()
    words = f"{drawing.figure.title}. {drawing.figure.caption}"
    return tag(
        "noscript",
        tag("figure", tag("figcaption", words), tag("img", src=f"data:image/svg+xml;base64,{drawn}", alt=words)),
    )


def _drawings(record: Record, sections: list[Section]) -> dict[str, object]:
    """What the script draws, by key; a run's own frames stay in the record and are only pointed to."""
    owners = {id(run["frames"]): index for index, run in enumerate(record["runs"])}
    return {
        drawing.key: {
            "figure": drawing.figure.words(),
            "spec": drawing.figure.spec,
            "run": owners.get(id(drawing.frames)),
            "frames": None if id(drawing.frames) in owners else dict(drawing.frames),
        }
        for section in sections
        for drawing in section.drawings
    }
