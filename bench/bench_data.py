"""Data preparation and loading on the core corpus: time of each step, and what two choices cost or bring.

    python bench/bench_data.py [--out result.json]

Steps are timed in a temporary cache (packages are fetched before, so the network is not timed). Packing is held against
joining documents and cutting the stream; the tokenizer's training sample against four times as much text.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data import PackedDataset, corpus, selection, tokenizer
from lablib.data import prepare as stage
from lablib.data.catalogue import CORE
from lablib.data.corpus import Corpus
from lablib.data.packing import pack
from lablib.runs import Recorder
from lablib.specs import Prepare, paths

LENGTHS = (256, 1024, 2048)
"""Window lengths that packing is measured at."""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(Seconds, result)."""
    begun = time.perf_counter()
    result = work()
    return round(time.perf_counter() - begun, 3), result


def bytes_per_token(built: Corpus, sample: float) -> tuple[float, float]:
    """(Seconds of training on `sample` bytes, bytes per token of held-out text) at a vocabulary of 4,096."""
    quotas = selection.quotas(built, sample)
    texts = [text for d in built.domains for text in selection.sample(built, d, quotas[d] or 1e18, 0.01)]
    seconds, trained = timed(lambda: tokenizer.train(texts, 4096))
    heldout = [
        doc.text
        for d in built.domains
        for doc in built.documents(d)
        if selection.split_of(doc.sha256, 0.01) == "heldout"
    ]
    ids = tokenizer.encode(trained, heldout)
    return seconds, round(sum(len(text.encode()) for text in heldout) / sum(map(len, ids)), 4)


def packing_facts(data: Path, seq_len: int) -> dict[str, float]:
    """Best fit against a joined stream: share of slots that predict, share of documents cut that would have fitted."""
    best, slots, fitting, cut, seconds, documents = 0, 0, 0, 0, 0.0, 0
    for index in (data / "shards").glob("*.train.idx.npy"):
        ends = np.load(index)
        lengths = np.diff(ends, prepend=0)
        spent, packed = timed(lambda e=ends, n=lengths: pack(e - n, n, seq_len + 1))
        best, slots, seconds = best + packed.targets, slots + len(packed) * seq_len, seconds + spent
        fits = lengths <= seq_len + 1
        crosses = (ends - lengths) // (seq_len + 1) != (ends - 1) // (seq_len + 1)
        fitting, cut, documents = fitting + fits.sum(), cut + (fits & crosses).sum(), documents + len(lengths)
    return {
        "predicting_share": round(best / slots, 4),
        "cut_by_joining": round(float(cut / fitting), 4),
        "microseconds_a_document": round(seconds / documents * 1e6, 2),
    }


def measure(root: Path) -> dict[str, Any]:
    """All numbers, by name."""
    folder = root / "corpus"
    folder.mkdir()
    read, _ = timed(lambda: corpus.build(CORE, folder))
    built = Corpus(folder)
    run = Recorder.create(root / "runs", Prepare())
    whole, _ = timed(lambda: stage.prepare(run.recipe, run))
    again = Recorder.create(root / "runs", Prepare())
    second, _ = timed(lambda: stage.prepare(again.recipe, again))
    opened, data = timed(lambda: PackedDataset(run.path / "data", seq_len=256))
    windows, _ = timed(lambda: [data[i] for i in range(5000)])
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "seconds": {"read_corpus": read, "prepare": whole, "prepare_again": second, "open_loader": opened},
        "microseconds_a_window": round(windows / 5000 * 1e6, 1),
        "tokenizer_sample": {f"{mb} MB": bytes_per_token(built, mb * 1e6) for mb in (2, 8, 32)},
        "packing": {str(length): packing_facts(run.path / "data", length) for length in LENGTHS},
    }


def main() -> None:
    """Measure and print; ``--out`` also writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    for source in CORE:
        source.fetch()
    packages = paths.assets() / "packages"
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["LAB_HOME"] = temporary
        paths.assets().mkdir(parents=True)
        (paths.assets() / "packages").symlink_to(packages)
        text = json.dumps(measure(Path(temporary)), indent=1)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
