"""All benches of data against what is asked of them, each in a process of its own.

    python -m bench.data [--only dedup packing] [--quick] [--peers FOLDER] [--json]

Every ratio is of one run on one machine, each side computing the same; FOLDER is a site-packages folder with the peers
that this environment does not have (datatrove 0.10.1, spacy, gaoya, datasketch). What could not be measured is said to be
so, and never counts as reached. `--quick` takes less text: ratios of speed hold, rare errors do not show.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]
COMMANDS: dict[str, tuple[str, ...]] = {
    "quality": ("--json", "--mb", "20"),
    "dedup": ("--json", "--mb", "20"),
    "contamination": ("--json",),
    "tokenizing": ("--json",),
    "packing": ("--json",),
    "scale": ("--megabytes", "16", "64"),
}
"""Bench → its options."""
QUICK: dict[str, tuple[str, ...]] = {
    "quality": ("--json", "--mb", "6", "--peer-mb", "1"),
    "dedup": ("--json", "--mb", "8", "--slow-mb", "2"),
    "contamination": ("--json", "--injections", "60", "--clean", "2000", "--near", "500", "--items", "100"),
    "tokenizing": ("--json", "--mb", "4"),
    "packing": ("--json",),
    "scale": ("--megabytes", "8", "32"),
}
SIGNS: dict[str, Callable[[float, float], bool]] = {"≥": operator.ge, "≤": operator.le}
MAIN, MADE, BARE, FRESH = "public benchmarks", "word problems", "bare templates", "fresh problems"
"""Items of the bench of decontamination. Of the last, even the kinds of question were not tuned on."""


@dataclass(frozen=True)
class Bar:
    """What is asked of one figure."""

    bench: str
    claim: str
    sign: str
    least: float
    figure: Callable[[Result], float]
    """Raises `LookupError` where the bench did not measure it."""


@dataclass(frozen=True)
class Row:
    """A bar and what was reached; None where it was not measured."""

    bench: str
    claim: str
    asked: str
    reached: float | None
    verdict: str


def _peer(result: Result, name: str) -> float:
    """Our speed over the peer's whose name begins so, the least of them."""
    found = [value for key, value in result["ratios"].items() if key.startswith(f"over {name}")]
    if not found:
        raise LookupError(name)
    return float(min(found))


def _ours(result: Result, figure: str) -> float:
    return float(next(iter(result["tools"].values()))[figure])


def _found(items: str, part: str, kind: str) -> Callable[[Result], float]:
    return lambda result: float(result[items]["detectors"]["coverage"][part][kind]["share"])


def _over_scan(result: Result) -> float:
    told = result[MAIN]["detectors"]
    return float(told["coverage"]["mb_per_cpu_second"] / told["plain 13-gram"]["mb_per_cpu_second"])


def _fastest(result: Result) -> float:
    """Of the encoders whose ids are those of the reference on every document."""
    equal = [row["of_tiktoken"] for row in result["encode"].values() if not row["unequal"]]
    return float(max(equal))


def _growth(result: Result) -> float:
    return float(result["peaks"][-1] / result["peaks"][0])


KINDS = ("exact", "case", "punctuation", "unicode", "short")
BARS: tuple[Bar, ...] = (
    Bar("quality", "Gopher quality and repetition over datatrove, all signals", "≥", 10, lambda r: float(r["datatrove"]["ratio"]["whitespace to all_signals"])),
    Bar("quality", "the same by datatrove's own kind of words", "≥", 10, lambda r: float(r["datatrove"]["ratio"]["tokens to all_signals"])),
    Bar("dedup", "near-duplicates with verification over datatrove", "≥", 20, lambda r: _peer(r, "datatrove")),
    Bar("dedup", "over gaoya, which does not verify, at the same bands", "≥", 0.8, lambda r: _peer(r, "gaoya")),
    Bar("dedup", "precision", "≥", 1, lambda r: _ours(r, "precision")),
    Bar("dedup", "recall of pairs a tenth above the threshold", "≥", 0.99, lambda r: _ours(r, "recall")),
    Bar("contamination", "speed over a plain 13-gram scan", "≥", 1, _over_scan),
    *(Bar("contamination", f"recall, {kind}, {items}", "≥", 0.99, _found(items, "recall", kind)) for items in (MAIN, MADE, FRESH) for kind in KINDS),
    *(Bar("contamination", f"recall, a fifth of the words edited, {items}", "≥", 0.9, _found(items, "recall", "edited 20 %")) for items in (MAIN, MADE, FRESH, BARE)),
    *(Bar("contamination", f"false positives, {kind}, {items}", "≤", 0.002, _found(items, "false_positives", kind)) for items in (MAIN, MADE, FRESH) for kind in ("clean", "other numbers")),
    Bar("tokenizing", "fastest encoder with equal ids over tiktoken", "≥", 1, _fastest),
    *(Bar("packing", f"transitions kept, windows of {size}", "≥", 1, lambda r, size=size: float(r[size]["kept"])) for size in ("256", "2048")),  # type: ignore[misc]
    *(Bar("packing", f"places filled, windows of {size}", "≥", 0.999, lambda r, size=size: float(r[size]["filled"])) for size in ("256", "2048")),  # type: ignore[misc]
    Bar("scale", "peak memory at four times the text", "≤", 1.1, _growth),
)  # fmt: skip


def judged(bar: Bar, result: Result | None) -> Row:
    """The bar against a bench's result."""
    asked = f"{bar.sign} {bar.least:g}"
    try:
        reached = None if result is None else bar.figure(result)
    except (LookupError, TypeError, ValueError):
        reached = None
    verdict = "not measured" if reached is None else "reached" if SIGNS[bar.sign](reached, bar.least) else "MISSED"
    return Row(bar.bench, bar.claim, asked, None if reached is None else round(reached, 4), verdict)


def run(bench: str, options: Sequence[str], peers: str) -> Result | None:
    """A bench's JSON; None where it failed, which its own last line on stderr explains."""
    told = ["--peers", peers] if peers and bench in ("dedup", "tokenizing") else []
    # The peers' folder goes behind this environment's, whose versions are the pinned ones.
    code = f"import runpy, sys; sys.path.append({peers!r}); sys.argv[0] = {bench!r}; runpy.run_module('bench.data.{bench}', run_name='__main__', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", code, *options, *told], capture_output=True, text=True, check=False, env=os.environ)  # fmt: skip
    if done.returncode:
        print(f"{bench}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    return parsed(bench, done.stdout)


def parsed(bench: str, printed: str) -> Result:
    """What a bench printed; `scale` prints sentences, of which the peaks are taken."""
    if bench == "scale":
        return {"peaks": [float(peak) for peak in re.findall(r"peak (\d+) MB", printed)]}
    found: Result = json.loads(printed)
    return found


def main() -> None:
    """Run the benches, judge the bars, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="BENCH")
    parser.add_argument("--quick", action="store_true", help="less text, some minutes in all")
    parser.add_argument("--peers", type=Path, help="a site-packages folder with the peers")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    options = QUICK if asked.quick else COMMANDS
    results = {bench: run(bench, options[bench], str(asked.peers or "")) for bench in asked.only}
    rows = [judged(bar, results[bar.bench]) for bar in BARS if bar.bench in results]
    if asked.json:
        print(json.dumps({"load": os.getloadavg()[0], "bars": [asdict(row) for row in rows], "results": results}))
        return
    for row in rows:
        reached = "" if row.reached is None else f"{row.reached:g}"
        print(f"{row.bench:14}{row.claim:62}{row.asked:>9}{reached:>10}  {row.verdict}")


if __name__ == "__main__":
    main()
