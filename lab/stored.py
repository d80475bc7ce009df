"""`lab data cache`: what the data cache holds, and the removal of what nobody uses."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from lab.show import amount, console, table
from lablib.data import upkeep
from lablib.data.upkeep import Holding, Removed
from lablib.specs import LabError, paths
from lablib.specs.units import parse_seconds, show_count, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `lab data cache`."""
    command.add_argument("--remove", nargs="*", metavar="KIND", default=None, help=f"with cache: remove products of these kinds, of the intermediate ones where none is named, of {upkeep.EVERY!r} kinds; none that is in use")  # fmt: skip
    command.add_argument("--older-than", default="0", help="with --remove: only what was not used for so long, such as 30d")  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="with --remove: say what would go, and remove nothing")
    command.add_argument("--yes", action="store_true", help="with --remove: do not ask")


def show(args: argparse.Namespace) -> None:
    """List the kinds, or remove."""
    if args.remove is not None:
        _remove(args)
        return
    if args.dry_run or args.yes or args.older_than != "0":
        raise LabError("--older-than, --dry-run and --yes say how to remove; give --remove with them")
    held = upkeep.held()
    if args.json:
        print(json.dumps([asdict(one) for one in held], indent=1))
        return
    if not held:
        console.print(f"the data cache at {paths.home()} is empty")
        return
    columns = ["kind", "what for", "products", "in use", "bytes", "own bytes", "last used", "intermediate"]
    rows = [[one.kind, one.says, f"{one.products:,}", f"{one.in_use:,}", show_count(one.bytes), show_count(one.own_bytes), _ago(one), "yes" if one.intermediate else ""] for one in held]  # fmt: skip
    console.print(table(columns, rows, f"Data cache at {paths.home()}", words=("what for",)))
    console.print("own bytes: those that no other kind shares, which its removal frees. Intermediate ones are made again from the others; `lab data cache --remove` removes those that nobody uses", style="dim")  # fmt: skip


def _ago(one: Holding) -> str:
    return "" if one.used is None else f"{show_seconds(max(0.0, time.time() - one.used))} ago"


def _remove(args: argparse.Namespace) -> None:
    older = amount("--older-than", args.older_than, parse_seconds) or 0.0
    if older < 0:
        raise LabError(f"--older-than {args.older_than}: give a time from now back, such as 30d")
    if not args.dry_run and not args.yes:
        if args.json or not sys.stdin.isatty():
            raise LabError("lab data cache --remove asks before it removes; give --yes, or --dry-run to see what would go")  # fmt: skip
        console.print(_said(upkeep.remove(args.remove, older, dry=True), "would be"), markup=False, highlight=False)
        if console.input("Remove? [y/N] ").strip().lower() not in ("y", "yes"):
            return
    told = upkeep.remove(args.remove, older, dry=args.dry_run)
    if args.json:
        print(json.dumps({**asdict(told), "dry_run": args.dry_run}, indent=1))
        return
    console.print(_said(told, "would be" if args.dry_run else "were"), markup=False, highlight=False)


def _said(told: Removed, verb: str) -> str:
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in told.products.items()) or "none"
    kept = [f"{told.in_use:,} in use"] * bool(told.in_use) + [f"{told.younger:,} used since"] * bool(told.younger)
    return f"{kinds} {verb} removed, {show_count(told.bytes)} bytes freed{'; kept: ' + ', '.join(kept) if kept else ''}"
