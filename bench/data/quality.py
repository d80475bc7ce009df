"""Quality signals: speed beside datatrove's filters, agreement with them on the same words, and what a splitter does.

    python -m bench.data.quality [--json] [--mb 30] [--peer-mb 2]
    PYTHONPATH=/tmp/peers python -m bench.data.quality     # with datatrove and spacy installed there by pip --target

Text is what the packages of this environment hold: modules and documentation, shuffled by hash. Speeds are MB of UTF-8 a
second of CPU time, all threads counted. datatrove stops at the first rule that a document breaks; `all_signals` gives it
thresholds that nothing breaks, so that it computes what we do, `as_shipped` leaves it its own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lablib.data.catalogue import CORE
from lablib.data.documents import Document
from lablib.data.quality import measure, verdicts
from lablib.data.quality.lines import lines
from lablib.data.quality.ngrams import repetition
from lablib.data.quality.sample import SPLITTERS
from lablib.data.quality.splitters import PATTERNS, split
from lablib.data.quality.words import wording
from lablib.data.sources.machine import INSTALLED
from lablib.specs.cleaning import Clean, Splitter

BATCH = 4_000_000
SAMPLED = 30
"""Documents of each domain in the sample that the package carries."""
ENDLESS = 1e9


def installed(size: float) -> list[Document]:
    """Documents of at least 200 characters from this environment's packages, `size` bytes in all, the same every time."""
    root = INSTALLED.root
    paths = (path for path in root.rglob("*") if path.suffix in {".py", ".md", ".rst", ".txt"} and path.is_file())
    order = sorted(paths, key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).digest())
    found, total = [], 0.0
    for path in order:
        text = path.read_bytes()[:150_000].decode("utf-8", "ignore").replace("\0", "")
        if len(text) >= 200:
            found.append(Document("installed", str(path.relative_to(root)), "of each package", text))
            total += len(text.encode())
        if total >= size:
            break
    return found


def megabytes(documents: list[Document]) -> float:
    """UTF-8 text in MB."""
    return sum(len(document.text.encode()) for document in documents) / 1e6


def speed(work: Callable[[], Any], size: float) -> float:
    """MB a CPU-second; `size` in MB."""
    begun = time.process_time()
    work()
    return round(size / (time.process_time() - begun), 3)


def batches(documents: list[Document]) -> Iterator[pl.Series]:
    """Texts in batches as `measure` takes them."""
    held: list[str] = []
    for document in documents:
        held.append(document.text)
        if sum(map(len, held)) >= BATCH:
            yield pl.Series(held)
            held = []
    if held:
        yield pl.Series(held)


def gopher(documents: list[Document], splitter: Splitter) -> None:
    """Gopher's quality and repetition signals alone (C4's and FineWeb's lines come along with the repeated ones)."""
    for texts in batches(documents):
        chars = texts.str.len_chars().to_numpy().astype(np.int64)
        words = split(texts, splitter)
        wording(texts, words), repetition(words, chars), lines(texts, chars)


def filters(endless: bool) -> list[Any]:
    """datatrove's two filters, with its own thresholds or with ones that nothing breaks."""
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    if not endless:
        return [GopherRepetitionFilter(), GopherQualityFilter()]
    loose = dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"), ENDLESS)
    grams = {"top_n_grams": tuple((n, ENDLESS) for n in (2, 3, 4)), "dup_n_grams": tuple((n, ENDLESS) for n in range(5, 11))}  # fmt: skip
    quality = GopherQualityFilter(1e-9, ENDLESS, 1e-9, ENDLESS, ENDLESS, ENDLESS, ENDLESS, 1e-9, 0)
    return [GopherRepetitionFilter(**loose, **grams), quality]


def verdict(chain: list[Any], text: str) -> str:
    """Why datatrove drops a text; empty where it keeps it."""
    from datatrove.data import Document as Theirs

    for one in chain:
        told = one.filter(Theirs(text=text, id="x"))
        if told is not True:
            return str(told[1])
    return ""


def datatrove_speed(documents: list[Document], endless: bool) -> float:
    """Both filters one after the other; the words of a document are split once, as datatrove caches them."""
    chain = filters(endless)
    verdict(chain, "to warm up " * 30)
    return speed(lambda: [verdict(chain, document.text) for document in documents], megabytes(documents))


def agreement(documents: list[Document], splitter: Splitter) -> dict[str, float]:
    """Share of documents that both keep or both drop, datatrove being given our words."""
    from datatrove.pipeline.filters import gopher_quality_filter, gopher_repetition_filter

    pattern = PATTERNS[splitter]
    before = gopher_quality_filter.split_into_words
    ours = lambda text, language: pl.Series([text]).str.extract_all(pattern)[0].to_list()  # noqa: E731
    modules = (gopher_quality_filter, gopher_repetition_filter)
    for module in modules:
        module.split_into_words = ours
    try:
        chain = filters(False)
        theirs = np.array([verdict(chain, document.text) == "" for document in documents])
    finally:
        for module in modules:
            module.split_into_words = before
    kept = verdicts(measure(documents, splitter), Clean(preset="gopher", splitter=splitter)).kept
    return {"agreement": round(float((kept == theirs).mean()), 4), "ours_keep": round(float(kept.mean()), 4), "theirs_keep": round(float(theirs.mean()), 4)}  # fmt: skip


def bench(size: float, peer: float) -> dict[str, Any]:
    """All figures by name."""
    documents = installed(size * 1e6)
    few = installed(peer * 1e6)
    gopher(few[:20], "whitespace")
    result: dict[str, Any] = {
        "mb": round(megabytes(documents), 1),
        "docs": len(documents),
        "cpus": os.cpu_count(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    tables: dict[Splitter, pl.DataFrame] = {}
    result["all_signals_mb_per_cpu_s"] = {s: speed(lambda s=s: tables.update({s: measure(documents, s)}), megabytes(documents)) for s in SPLITTERS}  # fmt: skip
    result["gopher_mb_per_cpu_s"] = {s: speed(lambda s=s: gopher(documents, s), megabytes(documents)) for s in SPLITTERS}  # fmt: skip
    result["kept"] = {s: {p: round(float(verdicts(tables[s], Clean(preset=p, splitter=s)).kept.mean()), 4) for p in ("gopher", "c4", "fineweb")} for s in SPLITTERS}  # type: ignore[arg-type]  # fmt: skip
    begun = time.perf_counter()
    verdicts(pl.concat([tables["whitespace"]] * (50_000 // len(documents) + 1)).head(50_000), Clean(preset="fineweb"))
    result["verdicts_on_50000_docs_ms"] = round(1e3 * (time.perf_counter() - begun), 1)
    result["datatrove"] = _beside(few) if util.find_spec("datatrove") and util.find_spec("spacy") else "not importable"
    return result


def _beside(few: list[Document]) -> dict[str, Any]:
    """datatrove on the smaller text, and ours on the same."""
    ours = {s: speed(lambda s=s: gopher(few, s), megabytes(few)) for s in SPLITTERS}
    theirs = {name: datatrove_speed(few, name == "all_signals") for name in ("all_signals", "as_shipped")}
    chain = filters(False)
    native = np.mean([verdict(chain, document.text) == "" for document in few])
    return {
        "mb": round(megabytes(few), 2),
        "docs": len(few),
        "ours_mb_per_cpu_s": ours,
        "mb_per_cpu_s": theirs,
        "ratio": {f"{s} to {name}": round(ours[s] / theirs[name], 1) for s in SPLITTERS for name in theirs},
        "same_words": {s: agreement(few, s) for s in SPLITTERS},
        "kept_with_its_own_words": round(float(native), 4),
    }


def write_sample(path: Path) -> None:
    """The sample that the package carries, from the corpus ``core``."""
    chosen: dict[str, list[Document]] = {}
    for source in CORE:
        source.fetch()
        for document in source.documents():
            chosen.setdefault(document.domain, []).append(document)
    smallest = [d for docs in chosen.values() for d in sorted(docs, key=lambda d: d.sha256)[:SAMPLED]]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for splitter in SPLITTERS:
            table = measure(smallest, splitter).drop("excerpt").with_columns(pl.col("sha256").str.slice(0, 16))
            if splitter == SPLITTERS[0]:
                rows.writerow(["splitter", "excerpt", *table.columns])
            for document, row in zip(smallest, table.rows(), strict=True):
                excerpt = re.sub(r"\s+", " ", document.text[:120]).strip() if splitter == SPLITTERS[0] else ""
                rows.writerow([splitter, excerpt, *(f"{v:.5g}" if isinstance(v, float) else v for v in row)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="machine-readable output, and nothing else, on stdout")
    parser.add_argument("--mb", type=float, default=30, help="text that we measure")
    parser.add_argument("--peer-mb", type=float, default=2, help="text that datatrove and we measure side by side")
    parser.add_argument("--sample", type=Path, metavar="CSV", help="write the sample that the package carries, and end")
    args = parser.parse_args()
    if args.sample:
        write_sample(args.sample)
        return
    result = bench(args.mb, args.peer_mb)
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
