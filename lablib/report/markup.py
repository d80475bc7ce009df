"""HTML that cannot be broken out of: every text is escaped, and only `tag` makes markup."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


class Markup(str):
    """Text that is HTML already, because `tag` or `join` made it."""


VOID = frozenset({"img", "meta", "br", "hr"})


def escape(text: object) -> Markup:
    """Any value as text in HTML; what is `Markup` already stays."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """Parts one after another, texts escaped; None is left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Attribute names lose a trailing underscore and turn others to dashes; None leaves one out."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    opened = "".join([f"<{name}", *(f' {key}="{escape(value)}"' for key, value in pairs), ">"])
    return Markup(opened if name in VOID else f"{opened}{join(children)}</{name}>")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None) -> Markup:
    """A table whose first column names the row; scrolls by itself where it is too wide."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns)))
    body = tag(
        "tbody", *(tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    )
    title = None if caption is None else tag("caption", caption)
    return tag(
        "div",
        tag("table", title, head, body),
        class_="lab-scroll",
        tabindex=0,
        role="region",
        aria_label=caption or "table",
    )


def folded(summary: str, *children: object) -> Markup:
    """Detail that opens on a click, and is printed."""
    return tag("details", tag("summary", summary), *children)


def json_block(identity: str, value: Any) -> Markup:
    """JSON inside a page: ``<`` is written as an escape, so that no text in it can end the element or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(f'<script type="application/json" id="{identity}">{safe}</script>')
