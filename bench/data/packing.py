"""Packing of the core corpus: how full windows are, and whether any transition inside a document is lost.

    python -m bench.data.packing [--json]

Kept is the share of transitions (a token predicted from those before it in its document) that are in exactly one window;
filled the share of places that hold a token, counted over the windows of all domains.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data.packing import pack
from lablib.data.prepare import prepare
from lablib.runs import Recorder
from lablib.specs import Prepare

WINDOWS = (256, 1024, 2048, 8192)
"""Tokens that a window predicts."""


def lengths() -> list[Any]:
    """Tokens of every training document of the core corpus, an array a domain, at the default tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Prepare()
        run = Recorder.create(Path(folder), recipe)
        prepare(recipe, run)
        files = sorted((run.path / "data" / "shards").glob("*.train.idx.npy"))
        return [np.diff(np.load(file), prepend=0) for file in files]


def measured(domains: list[Any], size: int) -> dict[str, float]:
    """Kept and filled at one size of window."""
    wanted = places = held = predicted = 0
    for one in domains:
        starts = np.cumsum(one) - one
        packed = pack(starts, one, size + 1)
        covered = np.zeros(int(one.sum()) + 1, np.int64)
        np.add.at(covered, packed.starts + 1, 1)
        np.add.at(covered, packed.starts + packed.lengths, -1)
        times = np.cumsum(covered)[:-1]
        inside = np.ones(int(one.sum()), bool)
        inside[starts] = False
        wanted, predicted = wanted + int(inside.sum()), predicted + int((times[inside] == 1).sum())
        places, held = places + len(packed) * (size + 1), held + int(packed.lengths.sum())
    return {"kept": predicted / wanted, "filled": round(held / places, 5)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    domains = lengths()
    result = {str(size): measured(domains, size) for size in WINDOWS}
    print(json.dumps(result) if asked.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
