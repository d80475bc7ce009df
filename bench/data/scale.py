"""Data preparation by size: MB per CPU-second of each product, peak memory, bytes on disk; `python -m bench.data.scale`.

The corpus ``core`` is written as JSON lines so many times, each copy with other words in every document, so that nothing is
a duplicate. Each size is prepared in a process of its own in an empty cache, with quality rules, near-duplicates and
decontamination; speeds are of the process' and its children's CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from lablib.data.catalogue import CORE
from lablib.data.contamination import Decontamination
from lablib.data.documents import Document
from lablib.data.quality import Quality
from lablib.runs import Recorder
from lablib.specs import Decontaminate, Prepare
from lablib.specs.dedup import Dedup

FILE = 4_000_000
"""Characters of one file."""
PHASES = {"_read": "read", "_once": "read", "_seen": "read", "_joined": "join", "_signed": "near-duplicates",
          "_gathered": "near-duplicates", "_removed": "near-duplicates", "_choose": "choose encoder", "_piece": "tokenise"}  # fmt: skip
"""What each kind of job is part of; the rest is named after its step of the funnel, or trains the tokenizer."""


def write(folder: Path, megabytes: int) -> int:
    """A folder of JSON lines; gives the bytes of text."""
    rng, total, copy = random.Random(0), 0, 0
    folder.mkdir(parents=True)
    file = None
    size = FILE
    while total < megabytes * 1e6:
        for document in (found for source in CORE for found in source.documents() if isinstance(found, Document)):
            if size >= FILE:
                if file:
                    file.close()
                file, size = (folder / f"{total:012}.jsonl").open("w", encoding="utf-8"), 0
            words = document.text.split(" ")
            text = " ".join(f"{word}{rng.randrange(99)}" if rng.random() < 0.2 else word for word in words) if copy else document.text  # fmt: skip
            assert file is not None
            file.write(json.dumps({"text": text}) + "\n")
            size += len(text)
            total += len(text.encode())
            if total >= megabytes * 1e6:
                break
        copy += 1
    if file:
        file.close()
    return total


def measured(corpus: Path, home: Path, threads: int) -> dict[str, Any]:
    """One preparation in this process."""
    os.environ["LAB_HOME"] = str(home)
    from lablib.data import prepare
    from lablib.data.scale import team

    spent: defaultdict[str, float] = defaultdict(float)
    each = team.Team.each

    def timed(self: team.Team, jobs: Any, *more: Any) -> Any:
        before, first = _cpu(), jobs[0]
        made = each(self, jobs, *more)
        named = [one.name for one in first.args if isinstance(one, Quality | Decontamination)]
        name = PHASES.get(first.make.__name__) or (named or ["train tokenizer"])[0]
        spent[name] += _cpu() - before
        return made

    team.Team.each = timed  # type: ignore[method-assign]
    recipe = Prepare(corpus=str(corpus), vocab=32768, clean="gopher", dedup=Dedup(threshold=0.7), threads=threads,  # type: ignore[arg-type]
                     decontaminate=Decontaminate(benchmarks=("mmlu", "gsm8k", "humaneval")), part_bytes=4_000_000)  # fmt: skip
    begun, before = time.monotonic(), _cpu()
    prepare.prepare(recipe, Recorder.create(home / "runs", recipe))
    total = _cpu() - before
    spent["rest"] = total - sum(spent.values())
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    disk = {
        kind.name: sum(f.stat().st_size for f in kind.rglob("*") if f.is_file()) for kind in (home / "data").iterdir()
    }
    return {
        "cpu_s": dict(spent),
        "all_cpu_s": total,
        "wall_s": time.monotonic() - begun,
        "peak_mb": peak / 1000,
        "disk": disk,
    }


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Print a row a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[12, 48])
    parser.add_argument("--threads", type=int, default=1, help="with several, CPU time is known only in all")
    parser.add_argument("--one", nargs=2, metavar=("CORPUS", "HOME"), help="prepare this corpus here, and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(Path(args.one[0]), Path(args.one[1]), args.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in args.megabytes:
            corpus, home = Path(folder) / f"text-{megabytes}", Path(folder) / f"home-{megabytes}"
            size = write(corpus, megabytes)
            command = [sys.executable, "-m", "bench.data.scale", "--threads", str(args.threads), "--one", str(corpus), str(home)]  # fmt: skip
            told = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            )
            print(f"{size / 1e6:.0f} MB of text, {args.threads} processes: {told['all_cpu_s']:.1f} CPU s, {told['wall_s']:.1f} s, "
                  f"peak {told['peak_mb']:.0f} MB a process")  # fmt: skip
            for name, seconds in told["cpu_s"].items():
                print(f"  {name:<18} {seconds:6.1f} s  {size / 1e6 / max(seconds, 1e-9):8.1f} MB/CPU s")
            print(
                "  disk: "
                + ", ".join(f"{name} {bytes_ / size:.2f}" for name, bytes_ in told["disk"].items())
                + " bytes a byte of text"
            )


if __name__ == "__main__":
    main()
