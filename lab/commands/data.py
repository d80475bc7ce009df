"""What a prepared data set is made of: its funnel, its rights, what was dropped and why.

lab data funnel RUN                                documents and bytes through each step, and the reasons
lab data rights RUN --licence GPL --source pypi    every document by source and licence, as a table or JSON lines
lab data dropped RUN --step quality                samples of what a step dropped, with the reason
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from typing import Any

from lab.show import console, table
from lablib.data import shards
from lablib.data.funnel import totals
from lablib.runs import Run
from lablib.specs import LabError
from lablib.specs.units import show_count


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("what", choices=["funnel", "rights", "dropped"])
    command.add_argument("run", help="id or folder of a prepare run")
    command.add_argument("--licence", default="", help="with rights: only licences that contain this")
    command.add_argument("--source", default="", help="with rights: only sources that contain this")
    command.add_argument("--step", default="", help="with dropped: only steps whose name contains this")
    command.add_argument("--top", type=int, default=20, help="rows to show (default 20); JSON has all")
    command.add_argument("--json", action="store_true", help="print JSON, with rights and dropped a line a document")


def run(args: argparse.Namespace) -> None:
    """Show one of them."""
    opened = Run.open(args.run)
    if opened.recipe.stage != "prepare":
        raise LabError(f"run {opened.id} is a {opened.recipe.stage} run; give a prepare run")
    {"funnel": _funnel, "rights": _rights, "dropped": _dropped}[args.what](opened, args)


def _funnel(opened: Run, args: argparse.Namespace) -> None:
    card = shards.manifest(opened.path / "data")
    if args.json:
        print(json.dumps(card["funnel"], indent=1))
        return
    rows = []
    for row in card["funnel"]:
        told = totals(row)
        rows.append([row["step"], f"{told.docs_in:,}", f"{told.docs_out:,}", show_count(told.bytes_out), told.why])
    tokens = sum(shard["tokens"] for shard in card["shards"])
    rows.append(
        ["tokenised", "", f"{sum(shard['docs'] for shard in card['shards']):,}", "", f"{show_count(tokens)} tokens"]
    )
    console.print(
        table(["step", "documents in", "out", "bytes out", "dropped because"], rows, words=("dropped because",))
    )


def _documents(opened: Run) -> Iterator[dict[str, Any]]:
    folder = opened.path / "data" / "shards"
    for file in sorted(folder.glob("*.docs.jsonl.gz")):
        domain, split = file.name.removesuffix(".docs.jsonl.gz").rsplit(".", 1)
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield {"domain": domain, "split": split, **json.loads(line)}


def _rights(opened: Run, args: argparse.Namespace) -> None:
    counts: dict[tuple[str, str, str], int] = {}
    for row in _documents(opened):
        if args.licence.lower() in row["licence"].lower() and args.source.lower() in row["source"].lower():
            if args.json:
                print(json.dumps(row, ensure_ascii=False))
            key = (row["source"].partition("/")[0], row["licence"], row["domain"])
            counts[key] = counts.get(key, 0) + 1
    if args.json:
        return
    if not counts:
        raise LabError("no document has such a licence and source; leave --licence and --source out to see all")
    ranked = sorted(counts.items(), key=lambda one: -one[1])
    console.print(table(["source", "licence", "domain", "documents"], [[*key, f"{docs:,}"] for key, docs in ranked[: args.top]]))  # fmt: skip


def _dropped(opened: Run, args: argparse.Namespace) -> None:
    files = [file for file in sorted((opened.path / "dropped").glob("*.jsonl")) if args.step in file.stem]
    if not files:
        raise LabError(
            f"run {opened.id} has no samples of dropped documents{f' of a step {args.step!r}' if args.step else ''}"
        )
    rows = [{"step": file.stem, **json.loads(line)} for file in files for line in file.read_text("utf-8").splitlines()]
    if args.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    cells = [[row["step"], row["reason"], row["source"][-50:], " ".join(row["text"][:120].split())] for row in rows[: args.top]]  # fmt: skip
    console.print(table(["step", "reason", "source", "text"], cells, words=("reason", "source", "text")))
