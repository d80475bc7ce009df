"""What a prepared data set is made of: its funnel, its rights, what was dropped and why; and what there is to take.

lab data funnel RUN                                documents, bytes and tokens through each step, and the reasons
lab data rights RUN --licence GPL --source pypi    every document by source and licence, as a table or JSON lines
lab data rights RUN --synthetic                    those that a model wrote, with their share and generation
lab data dropped RUN --step quality                samples of what a step dropped, with the reason
lab data changed RUN --step personal               samples of what a step changed, before and after
lab data card RUN                                  the data card
lab data plan --tokens 15T --cores 5000            core-hours, days, disk and dollars to prepare so many tokens, by step
lab data plan --tokens 1T --also html,repeated-passages   with steps beyond the usual
lab data sources [NAME]                            public sources: size, licence, usual share, risk, how to read them
lab data cache                                     what the data cache holds: for what, how large, when last used
lab data cache --remove [KIND ...] --older-than 30d    remove what nobody uses: intermediate products, or these kinds
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from lab import stored
from lab.show import amount, console, emit, table
from lablib.data import provenance, samples, shards
from lablib.data.corpus import origin
from lablib.data.editing import shared_prefix
from lablib.data.flow import flow
from lablib.plan.data_rates import EXTRAS
from lablib.plan.preparing import plan_data
from lablib.runs import Run
from lablib.specs import LabError, Profile
from lablib.specs.sources import PublicSource, sources
from lablib.specs.units import parse_count, parse_dollars, show_count


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("what", choices=[*SHOWN, "sources", "plan", "cache"])
    command.add_argument(
        "run", nargs="?", default="", help="id or folder of a prepare run; with sources: a source's name"
    )
    command.add_argument("--licence", default="", help="with rights: only licences that contain this")
    command.add_argument("--source", default="", help="with rights: only sources that contain this")
    command.add_argument("--synthetic", action="store_true", help="with rights: only documents that a model wrote")
    command.add_argument("--step", default="", help="with dropped and changed: only steps whose name contains this")
    command.add_argument("--top", type=int, default=20, help="rows to show (default 20); JSON has all")
    command.add_argument("--tokens", default="", help="with plan: how many, such as 15T")
    command.add_argument("--cores", type=int, default=1000, help="with plan: cores that work at once (default 1,000)")
    command.add_argument("--profile", default="", help="with plan: cores and price of a profile of CPUs instead")
    command.add_argument("--price", default=None, help="with plan: dollars a core-hour")
    command.add_argument("--ready", action="store_true", help="with plan: a source that no step takes anything from")
    command.add_argument("--also", default="", help=f"with plan: more steps, with commas between: {', '.join(EXTRAS)}")
    command.add_argument("--explain", action="store_true", help="with plan: every number with its formula and source")
    stored.arguments(command)
    command.add_argument(
        "--json", action="store_true", help="print JSON, with rights, dropped and changed a line a document"
    )


def run(args: argparse.Namespace) -> None:
    """Show one of them."""
    if args.what == "sources":
        _sources(args)
        return
    if args.what == "plan":
        _plan(args)
        return
    if args.what == "cache":
        stored.show(args)
        return
    if not args.run:
        raise LabError(f"lab data {args.what} needs a prepare run; `lab jobs` lists them")
    opened = Run.open(args.run)
    if opened.recipe.stage != "prepare":
        raise LabError(f"run {opened.id} is a {opened.recipe.stage} run; give a prepare run")
    SHOWN[args.what](opened, args)


def _funnel(opened: Run, args: argparse.Namespace) -> None:
    rows = flow(shards.manifest(opened.path / "data"))
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    cells = [
        [row.step, f"{row.count.docs_in:,}", f"{row.count.docs_out:,}", show_count(row.count.bytes_out), show_count(row.tokens_out), row.count.why]
        for row in rows
    ]  # fmt: skip
    columns = ["step", "documents in", "out", "bytes out", "tokens out", "dropped because"]
    console.print(table(columns, cells, words=("dropped because",)))
    console.print("tokens before the last row: bytes times the tokens a byte of each domain's shards", style="dim")


def _rights(opened: Run, args: argparse.Namespace) -> None:
    counts: dict[tuple[str, str, str], list[float]] = {}
    for row in provenance.documents(opened.path / "data"):
        share, depth = row.get("synthetic", 0.0), row.get("generation", 0)
        if args.licence.lower() not in row["licence"].lower() or args.source.lower() not in row["source"].lower():
            continue
        if args.synthetic and not depth:
            continue
        if args.json:
            print(json.dumps(row, ensure_ascii=False))
        told = counts.setdefault((origin(row["source"]), row["licence"], row["domain"]), [0, 0.0, 0])
        told[0], told[1], told[2] = told[0] + 1, told[1] + share, max(told[2], depth)
    if args.json:
        return
    if not counts:
        raise LabError("no document is such; leave --licence, --source and --synthetic out to see all")
    made = any(depth for _, _, depth in counts.values())
    columns = ["source", "licence", "domain", "documents", *(["synthetic", "generation"] if made else [])]
    rows = []
    for key, (docs, share, depth) in sorted(counts.items(), key=lambda one: -one[1][0])[: args.top]:
        rows.append([*key, f"{docs:,.0f}", *([f"{share / docs:.0%}", f"{depth:.0f}"] if made else [])])
    console.print(table(columns, rows))


def _card(opened: Run, args: argparse.Namespace) -> None:
    path = opened.path / "data" / "card.md"
    if not path.is_file():
        raise LabError(f"run {opened.id} has no data card; prepare the recipe again to have one")
    text = path.read_text(encoding="utf-8")
    emit(args.json, json.dumps({"card": text}, ensure_ascii=False), text)


def _samples(opened: Run, args: argparse.Namespace) -> None:
    rows = samples.of_run(opened.path, args.what, args.step)
    if not rows:
        raise LabError(f"run {opened.id} has no samples of {args.what} documents{f' of a step {args.step!r}' if args.step else ''}")  # fmt: skip
    if args.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    columns = ["reason", "source", "text"] if args.what == "dropped" else ["source", "before", "after"]
    cells = [[row["step"], *_cells(row)] for row in rows[: args.top]]
    console.print(table(["step", *columns], cells, words=columns))


def _cells(row: dict[str, Any]) -> list[str]:
    """A sample in three short texts; of a changed one what stands around the first change."""
    source = row["source"][-50:]
    if "reason" in row:
        return [row["reason"], source, " ".join(row["text"][:120].split())]
    begin = max(0, shared_prefix(row["before"], row["after"]) - 40)
    return [source, *(" ".join(row[name][begin : begin + 120].split()) for name in ("before", "after"))]


def _sources(args: argparse.Namespace) -> None:
    if args.run:
        found = sources[args.run]
        emit(args.json, found.to_json(), found.facts())
        return
    if args.json:
        print(json.dumps([one.model_dump(mode="json") for one in sources.values()], ensure_ascii=False))
        return
    rows = [_source(one) for one in sources.values()]
    columns = ["name", "kind", "tokens", "usual share", "licence", "risk"]
    console.print(table(columns, rows, "Public sources", words=("kind", "licence", "risk")))


def _plan(args: argparse.Namespace) -> None:
    tokens, price = amount("--tokens", args.tokens or None, parse_count), amount("--price", args.price, parse_dollars)
    if tokens is None:
        raise LabError("lab data plan needs --tokens, such as --tokens 15T")
    cores = args.cores
    if args.profile:
        found = Profile.load(args.profile)
        cores, price = found.nodes * found.gpus_per_node, found.price_per_gpu_hour if price is None else price
        if found.accelerator is not None and found.accelerator.kind != "cpu":
            raise LabError(f"--profile {args.profile} has {found.accelerator.name}, whose price is not a core's; give --cores and --price")  # fmt: skip
    also = tuple(name.strip() for name in args.also.split(",") if name.strip())
    made = plan_data(tokens, cores, price, args.ready, also)
    if args.explain and not args.json:
        print(made.explain())
        return
    emit(args.json, made.to_json(), made.headline())
    if not args.json:
        console.print(table(["step", "text in", "text out", "core-hours", "disk"], made.rows()))
        began = "WARC of web pages" if "html" in also else "web text that was extracted already"
        console.print(f"{began}; --explain says where each number is from", style="dim")


def _source(one: PublicSource) -> list[str]:
    tokens = show_count(one.tokens.value) if one.tokens else "not known"
    return [one.name, one.kind, tokens, one.usual, one.licence, one.risk]


SHOWN = {"funnel": _funnel, "rights": _rights, "dropped": _samples, "changed": _samples, "card": _card}
