"""Plan, pretrain, align, evaluate and report a small language model on this machine (about ten minutes).

It measures the machine, spends a small budget on the best model it predicts, builds a corpus from pinned packages,
pretrains, fine-tunes (SFT), prefers (DPO) and reinforces (GRPO) that model on a puzzle it can check, evaluates every stage
against the base on prompts none of them saw, and writes one offline report. Each stage is a submitted run: Ctrl-C
saves, and the same command continues; what already holds is reused.

  lab tour                      the whole way
  lab tour --budget "5 min"     more time for pretraining
  lab tour --full               also aligns SmolLM2-135M, a real chat model (90 MB more to download, minutes more)
  lab tour --fresh              measure and run everything again
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.show import amount, console
from lablib.plan.calibrate import cores
from lablib.specs import LabError
from lablib.specs.paths import runs_root
from lablib.specs.units import parse_dollars, parse_seconds


def arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command.add_argument(
        "--budget", default="120 s", help='time for pretraining, e.g. "90 s" or "5 min" (default 120 s)'
    )
    command.add_argument(
        "--price", default="$0.10", help="dollars an hour that this machine is taken to cost (default $0.10)"
    )
    command.add_argument(
        "--threads",
        type=int,
        default=min(2, cores()),
        help="CPU threads of each stage (default: two, where there are two cores)",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of everything random")
    command.add_argument("--full", action="store_true", help="also align a real 135M chat model")
    command.add_argument("--tiny", action="store_true", help="as small as it goes; nothing is learned (for tests)")
    command.add_argument("--fresh", action="store_true", help="reuse nothing")
    command.add_argument("--root", type=Path, default=None, help="folder of the tour's runs (default runs/tour)")
    command.add_argument("--json", action="store_true", help="print the outcome as JSON at the end")


def run(args: argparse.Namespace) -> int:
    """Walk the whole way."""
    from lab.tour.recipes import Settings
    from lab.tour.walk import walk

    seconds, price = amount("--budget", args.budget, parse_seconds), amount("--price", args.price, parse_dollars)
    assert seconds is not None and price is not None
    if args.threads < 1 or seconds <= 0:
        raise LabError(f"--threads {args.threads}, --budget {args.budget}: both must be above 0")
    settings = Settings(seconds, args.seed, args.threads, args.tiny, args.full)
    console.quiet = args.json
    outcome = walk(settings, (args.root or runs_root() / "tour").absolute(), price, args.fresh)
    if args.json:
        print(json.dumps(outcome, indent=1))
    return 0 if outcome["completed"] else 1
