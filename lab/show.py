"""How the command line shows things: tables, plain text or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lablib.specs import Cluster

console = Console()
if not console.is_terminal:
    console.width = 140  # a log or a pipe has no width of its own; rich would cut tables at 80


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> RenderableType:
    """A plain table under its title; the first column is left-aligned and never cut, the others hug the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", no_wrap=index == 0)
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return Group("", Text(title, style="bold"), made) if title else made


def emit(as_json: bool, json_text: str, readable: str | Mapping[str, str]) -> None:
    """Print JSON for scripts, or text (a mapping becomes two columns) for people."""
    if as_json:
        print(json_text)
    elif isinstance(readable, str):
        console.print(readable, markup=False, highlight=False)
    else:
        console.print(table(["field", "value"], [[key, value] for key, value in readable.items()]))


def target(accelerator: str | None, gpus: int) -> Cluster:
    """The cluster to price on: `gpus` of a catalogue accelerator in nodes of eight, else this machine."""
    if accelerator is None:
        return Cluster.load("local")
    per_node = min(8, gpus)
    return Cluster(accelerator=accelerator, nodes=-(-gpus // per_node), gpus_per_node=per_node)
