"""Technical reference prose: the API documentation of cloud services, from botocore's service models (Apache-2.0)."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
from collections.abc import Iterator
from typing import Any

from lablib.data.packages import Package, members
from lablib.data.sources.pinned import Pinned

BOTOCORE = Package(
    "botocore",
    "1.44.5",
    "botocore-1.44.5-py3-none-any.whl",
    "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    16_555_415,
    "Apache-2.0",
)
LARGEST_SERVICE = 60_000
"""Characters kept of one service's pages, so that a few huge services do not make up the domain."""
_BREAK = re.compile(r"</?(?:p|li|ul|ol|dl|dt|dd|div|note|important|h\d|br|pre|table|tr)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")
_BLANKS = re.compile(r"[ \t]+")
_LINES = re.compile(r" ?\n[ \n]*")


def plain(markup: str) -> str:
    """Text of a documentation string: block tags become line breaks, other tags vanish, entities resolve."""
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", markup)))
    return _LINES.sub("\n", _BLANKS.sub(" ", text)).strip()


def read_services(package: Package) -> Iterator[tuple[str, str]]:
    """For the newest version of each service: its overview, and a page an operation, up to `LARGEST_SERVICE`.

    Operations come in the order of a hash of their names, so that a cut leaves a fair sample.
    """
    newest = {name.split("/")[2]: (name, data) for name, data in members(package.path, r"/service-2\.json\.gz$")}
    for name, data in newest.values():
        model, size = json.loads(gzip.decompress(data)), 0
        for title, text in _pages(model):
            size += len(text)
            if size > LARGEST_SERVICE:
                break
            yield f"{name}#{title}", text


def _pages(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    service = model["metadata"].get("serviceFullName", "")
    yield "overview", f"{service}\n\n{plain(model.get('documentation') or '')}"
    for name in sorted(model["operations"], key=lambda name: hashlib.sha256(name.encode()).digest()):
        operation = model["operations"][name]
        parts = [f"{service}: {name}", plain(operation.get("documentation") or "")]
        for side, heading in (("input", "Parameters"), ("output", "Returns")):
            lines = _members(model, operation.get(side, {}).get("shape", ""))
            parts += [heading + "\n" + "\n".join(lines)] if lines else []
        yield name, "\n\n".join(part for part in parts if part)


def _members(model: dict[str, Any], shape: str) -> list[str]:
    found = model["shapes"].get(shape, {}).get("members", {})
    notes = ((name, plain(item.get("documentation") or "")) for name, item in found.items())
    return [f"- {name}: {note}" for name, note in notes if note]


REFERENCE = Pinned("reference", (BOTOCORE,), read_services)
