"""How the command line shows things: tables, plain text or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lablib.specs import Cluster, LabError
from lablib.specs.hardware import LOCAL

console = Console()
if not console.is_terminal:
    console.width = 140  # a log or a pipe has no width of its own; rich would cut tables at 80


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", words: Sequence[str] = ()
) -> RenderableType:
    """A plain table under its title; the first column is left-aligned and never cut, the others hug the right, but for
    those named in `words`, which hold text."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        right = index > 0 and column not in words
        made.add_column(column, justify="right" if right else "left", no_wrap=index == 0)
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
    """The cluster to price on: `gpus` of a catalogue accelerator in nodes of eight, else this machine. Raises `LabError` for
    a number that does not fill its nodes."""
    if accelerator is None:
        return Cluster.load("local")
    per_node = min(8, gpus)
    if gpus < 1 or gpus % per_node:
        raise LabError(
            f"gpus={gpus}: give at least 1, and beyond one node a multiple of 8; `--profile` prices on other nodes"
        )
    return Cluster(accelerator=accelerator, nodes=-(-gpus // per_node), gpus_per_node=per_node)


def cluster_arguments(command: argparse.ArgumentParser, nodes: int) -> None:
    """Declare the options that say which machines: `cluster_of` reads them."""
    command.add_argument(
        "--profile", help="a profile's cluster (`lab cluster list`) instead of the options that follow"
    )
    command.add_argument(
        "--accelerator", default="h100-sxm", help="name in the catalogue (default h100-sxm), or 'local'"
    )
    command.add_argument("--nodes", type=int, default=nodes, help=f"nodes that you can have (default {nodes})")
    command.add_argument("--gpus-per-node", type=int, default=8, help="accelerators of a node (default 8)")
    command.add_argument(
        "--fabric", default=None, help="network between nodes; default: the accelerator's own line rate"
    )
    command.add_argument("--price", default=None, help="dollars an accelerator-hour; default: the catalogue's median")


def cluster_of(args: argparse.Namespace) -> Cluster:
    """The cluster that the options of `cluster_arguments` describe."""
    if args.profile:
        return Cluster.load(args.profile)
    if args.accelerator == LOCAL:
        return Cluster.load(LOCAL)
    price = (
        {} if args.price is None else {"price_per_gpu_hour": args.price, "price_source": "given on the command line"}
    )
    return Cluster(
        accelerator=args.accelerator, nodes=args.nodes, gpus_per_node=args.gpus_per_node, fabric=args.fabric, **price
    )


def amount(option: str, text: str | None, parse: Callable[[object], float]) -> float | None:
    """An option's text as a number by `parse`; None where it was not given. Raises `LabError` that names the option."""
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise LabError(f"{option} {text!r} {error}") from None


def machines(args: argparse.Namespace) -> str:
    """The option that names the same machines to `lab estimate`."""
    return f"--profile {args.profile}" if args.profile else f"--accelerator {args.accelerator}"
