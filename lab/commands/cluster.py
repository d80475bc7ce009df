"""Where recipes can run: the profiles, and drafts of new ones from a Slurm login node.

  lab cluster list
  lab cluster show slurm-dev
  lab cluster probe --name ours --partition gpu --root /shared/ours/runs

`probe` asks Slurm what a partition has and writes ~/.config/llm-lab/profiles/NAME.toml; read it before you use it.
"""

from __future__ import annotations

import argparse
import json

from cluster.probe import draft, write
from lab.show import console, table
from lablib.specs import LabError, Profile
from lablib.specs.profile import files
from lablib.specs.units import show_dollars, show_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument("what", choices=["list", "show", "probe"])
    command.add_argument("profile", nargs="?", help="with show: which one")
    command.add_argument("--name", help="with probe: what to call the profile")
    command.add_argument("--partition", help="with probe: which one (default: Slurm's default)")
    command.add_argument("--root", help="with probe: folder of runs on a filesystem that every node sees")
    command.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """List, show or draft."""
    if args.what == "list":
        _list(args.json)
    elif args.what == "show":
        found = Profile.load(args.profile or "local")
        console.print(found.to_json() if args.json else found.to_toml(), markup=False, highlight=False)
    else:
        made, notes = draft(args.name or "", args.partition, args.root)
        file = write(made)
        if args.json:
            print(json.dumps({"file": str(file), "notes": notes, "profile": json.loads(made.to_json())}))
            return
        console.print(f"Wrote {file}", *(f"  check: {note}" for note in notes), sep="\n", markup=False, highlight=False)
        console.print(f"Then: lab submit RECIPE --profile {made.name}", markup=False, highlight=False)


def _list(as_json: bool) -> None:
    rows = []
    for name in files():
        try:
            rows.append(_row(Profile.load(name)))
        except LabError as error:
            rows.append({"profile": name, "scheduler": f"unreadable: {str(error).splitlines()[-1].strip()}"})
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    columns = ["profile", "scheduler", "accelerator", "nodes", "per node", "time", "price/h"]
    console.print(table(columns, [[str(row.get(column, "")) for column in columns] for row in rows]))


def _row(profile: Profile) -> dict[str, object]:
    card, price = profile.accelerator, profile.price_per_gpu_hour
    return {
        "profile": profile.name,
        "scheduler": profile.scheduler,
        "accelerator": card.name if card else "this machine",
        "nodes": profile.nodes,
        "per node": profile.gpus_per_node,
        "time": show_seconds(profile.time) if profile.time else "",
        "price/h": show_dollars(price) if price is not None else "",
    }
