"""The training engine beside others, on this machine's CPU. Prints JSON (`race` a table in Markdown).

python -m bench.train pairs [--compile] [--turns 12] [--peers FOLDER]   # litgpt 0.5 is in FOLDER (pip install --target)
python -m bench.train memory | growth [--turns 12]
python -m bench.train race [--size whole] [--processes 1] [--record]    # --record appends to bench/RECORDS.md
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from bench.train.growth import growth
from bench.train.pairs import Setting, measure, memory
from bench.train.race import SIZES, race

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "memory", "growth", "race"])
    parser.add_argument("--compile", action="store_true", help="torch.compile on every side")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--peers", default="", help="a site-packages folder with what this environment lacks")
    parser.add_argument("--size", choices=list(SIZES), default="quick")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    sys.path += [asked.peers] if asked.peers else []
    torch.set_num_threads(1)
    given = Setting(compiled=asked.compile)
    if asked.what == "race":
        told = race(asked.size, HERE / "results" / "race", asked.processes)
        if asked.record:
            with (HERE / "RECORDS.md").open("a", encoding="utf-8") as records:
                records.write(f"\n{told}")
    else:
        wide = replace(given, model=given.model.replace(vocab=32_768))
        made = {"pairs": lambda: measure(given, asked.turns), "memory": lambda: memory(wide), "growth": lambda: growth(asked.turns)}  # fmt: skip
        told = json.dumps(made[asked.what](), indent=1)
    print(told)


if __name__ == "__main__":
    main()
