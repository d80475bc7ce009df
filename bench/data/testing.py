"""What running documents' own tests costs, and joining documents, and what the standard library's own modules come to.

    python -m bench.data.testing [--documents 60] [--mb 20]

The documents are the interpreter's modules of one file that have something of a test, and one of 4 kB that does next to nothing; speeds are in documents and megabytes
a CPU-second of all processes, and one sandbox's start is that of an empty program.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lablib.data import corpus, sandbox
from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.joining import Joining
from lablib.data.owntests import judge
from lablib.data.owntests.step import HINT
from lablib.specs import Join, Verify

REPEATS = 10
SHORT = "def add(a, b):\n    return a + b\n\n\nassert add(2, 3) == 5\n"


def cpu() -> float:
    """CPU-seconds of this process and of all that ended below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def modules(most: int) -> list[str]:
    """Texts of the standard library's modules that have something of a test, every n-th of them."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [text for file in files if HINT.search(text := file.read_text(encoding="utf-8", errors="replace"))]
    return texts[:: max(1, len(texts) // most)][:most]


def tested(most: int) -> dict[str, Any]:
    """Starts of a sandbox, then the modules' verdicts."""
    begun, clock = cpu(), time.monotonic()
    for _ in range(REPEATS):
        sandbox.run("")
    start = {"cpu_seconds": (cpu() - begun) / REPEATS, "seconds": (time.monotonic() - clock) / REPEATS}
    short, begun = SHORT.ljust(4000, "#") + "\n", cpu()
    assert all(judge(short, Verify()).kind == "passed" for _ in range(REPEATS))
    small = (cpu() - begun) / REPEATS
    texts, begun = modules(most), cpu()
    verdicts = Counter(judge(text, Verify()).kind for text in texts)
    used, size = cpu() - begun, sum(len(text.encode()) for text in texts) / 1e6
    return {"start": start, "4_kb": {"cpu_seconds": small, "mb_per_cpu_second": 0.004 / small}, "documents": len(texts), "verdicts": dict(verdicts), "mb": size,
            "cpu_seconds_a_document": used / len(texts), "mb_per_cpu_second": size / used}  # fmt: skip


def joined(megabytes: float) -> float:
    """Megabytes a CPU-second of joining texts of 4 kB by tens."""
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name, "before"), Path(name, "after")
        before.mkdir()
        after.mkdir()
        writer = corpus.Writer(before)
        with writer:
            for number in range(int(megabytes * 1e6 / 4000)):
                writer.add(Document("long", f"long/{number // 10}/{number}.txt", "MIT", f"{number} word " * 400))
        writer.describe({"long": {}})
        size, begun = Corpus(before).bytes("long") / 1e6, cpu()
        Joining(Join(domains=("long",))).apply([Corpus(before)], 0, after)
        return size / (cpu() - begun)


def main() -> None:
    """Print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--mb", type=float, default=20.0)
    args = parser.parse_args()
    found = {**tested(args.documents), "joined_mb_per_cpu_second": joined(args.mb), "load": os.getloadavg()[0]}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
